"""Kill a training at random moments (`kill -9`), resume it each time, compare bit for bit with an uninterrupted one.

The weights, the moving average, the optimizer state, accumulated gradients, random states, the counters and results.csv
are compared. Exit status 1 if anything differs. Each kill comes 0 to --seconds after a state was saved.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

OPTIONS = "--data shapes --cfg n --hyp shapes --img 64 --batch 16 --noplots --workers 1 --save-every 3 --image-weights"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "yolo_cli", "train", *words]


def differences(a: object, b: object, place: str = "") -> list[str]:
    """The places where two nested structures differ."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.shape == b.shape and torch.equal(a, b)
    elif isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{place}/{key}: in one only" for key in a.keys() ^ b.keys()]
        return missing + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{place}/{key}")]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{place}/{i}")]
    else:
        same = a == b
    return [] if same else [place]


def killed(run: Path, words: list[str], wait: float) -> bool:
    """Start or resume a training and kill it; False if it finished first."""
    with (run.parent / f"{run.name}.log").open("a") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        state = run / "weights/last.pt"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.02)
        try:
            process.wait(wait)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="minimum number of kills")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5, help="maximum time between a saved state and the kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    delays, start = random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="yolo_cli_kills_") as name:
        folder = Path(name)
        common = [*OPTIONS.split(), "--epochs", str(args.epochs), "--project", str(folder)]
        subprocess.run(command(*common, "--name", "whole"), check=True, stdout=subprocess.DEVNULL)
        run, kills = folder / "cut", 0
        words = command(*common, "--name", "cut")
        while killed(run, words, delays.uniform(0, args.seconds)):
            kills += 1
            words = command("--resume", str(run))
        states = [torch.load(folder / side / "weights/last.pt", weights_only=True) for side in ("whole", "cut")]
        for state in states:
            state["training"].pop("options")  # contain the name of the run
        found = differences(*states)
        rows = [(folder / side / "results.csv").read_bytes() for side in ("whole", "cut")]
        found += [] if rows[0] == rows[1] else ["results.csv"]
    print(f"{kills} kills in {time.monotonic() - start:.0f} s; {len(found)} differences {found[:5]}")
    if args.json:
        args.json.write_text(json.dumps({"kills": kills, "differences": found}) + "\n")
    sys.exit(bool(found) or kills < args.kills)


if __name__ == "__main__":
    main()
