"""Train the smallest models of other families from scratch on the built-in dataset `shapes`.

The command is that of `make train` with another --cfg. The goal is a mAP@0.5 of 0.85; the exit status is 1 if a model
stays below it. Each output line is one training: model, loss, mAP@0.5, mAP@0.5:0.95, minutes, and the training losses
of the first and the last epoch.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRAININGS = ("yolov3-tiny:anchor", "yolov7-tiny:anchor", "yolov7-tiny:ota")
GOAL = 0.85


def train(cfg: str, loss: str, epochs: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "yolo_cli", "train", "--data", "shapes", "--cfg", cfg, "--loss", loss]
    command += ["--hyp", "shapes", "--optimizer", "AdamW", "--img", "160", "--batch", "16"]
    command += ["--epochs", str(epochs), "--noval", "--noplots"]
    command += ["--project", str(folder), "--name", f"{cfg}-{loss}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = folder / f"{cfg}-{loss}"
    results = json.loads((run / "results.json").read_text())
    rows = list(csv.DictReader((run / "results.csv").open()))
    sums = [sum(float(row[f"train/{part}_loss"]) for part in ("box", "obj", "cls")) for row in (rows[0], rows[-1])]
    return {
        "model": cfg,
        "loss": loss,
        "epochs": epochs,
        "mAP_0.5": results["metrics"]["mAP_0.5"],
        "mAP_0.5:0.95": results["metrics"]["mAP_0.5:0.95"],
        "minutes": results["seconds"] / 60,
        "losses": sums,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainings", nargs="*", default=TRAININGS, metavar="MODEL:LOSS")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for training in args.trainings:
            cfg, _, loss = training.partition(":")
            row = train(cfg, loss or "anchor", args.epochs, Path(folder))
            rows.append(row)
            figures = f"mAP@0.5 {row['mAP_0.5']:.3f}, @0.5:0.95 {row['mAP_0.5:0.95']:.3f}, {row['minutes']:.1f} minutes"
            first, last = row["losses"]
            print(f"{cfg} --loss {row['loss']}: {figures}, losses {first:.3f} → {last:.3f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"cores": os.cpu_count(), "trainings": rows}, indent=1) + "\n")
    sys.exit(any(row["mAP_0.5"] < GOAL for row in rows))


if __name__ == "__main__":
    main()
