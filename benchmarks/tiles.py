"""Small objects in large images: training and evaluation in tiles against whole images, with equal pixels seen.

    python benchmarks/tiles.py --work DIR --weights yolov5n.pt

Draws 4K images with shapes of 12 to 24 pixels, trains once with --tile and once without, for as many epochs, and
compares the AP of small boxes. Both networks see the same number of canvases of the same size.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import yaml

HEIGHT, WIDTH = 2160, 3840
NAMES = ("circle", "square", "triangle")
BOXES = 40  # per image


def draw_image(random: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """A blurred, noisy background with small shapes, and its label rows."""
    coarse = random.integers(60, 200, (HEIGHT // 120, WIDTH // 120, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image = np.clip(image + random.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)
    rows = []
    for _ in range(BOXES):
        side = int(random.integers(12, 25))
        x, y = int(random.integers(0, WIDTH - side)), int(random.integers(0, HEIGHT - side))
        kind = int(random.integers(3))
        color = tuple(int(v) for v in random.choice([0, 255], 3))
        if kind == 0:
            cv2.circle(image, (x + side // 2, y + side // 2), side // 2, color, -1)
        elif kind == 1:
            cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), color, -1)
        else:
            points = np.array([[x, y + side - 1], [x + side // 2, y], [x + side - 1, y + side - 1]])
            cv2.fillPoly(image, [points], color)
        center = (x + side / 2) / WIDTH, (y + side / 2) / HEIGHT
        rows.append(f"{kind} {center[0]:.6f} {center[1]:.6f} {side / WIDTH:.6f} {side / HEIGHT:.6f}")
    return image, rows


def draw_dataset(folder: Path, counts: dict[str, int]) -> Path:
    """The data.yaml of a drawn dataset; drawn once."""
    spec = folder / "data.yaml"
    if spec.exists():
        return spec
    for number, (split, count) in enumerate(counts.items()):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, rows = draw_image(np.random.default_rng([number, i]))
            cv2.imwrite(str(folder / f"images/{split}/{i}.jpg"), image)
            (folder / f"labels/{split}/{i}.txt").write_text("\n".join(rows), encoding="utf-8")
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": list(NAMES)}
    spec.write_text(yaml.safe_dump(content), encoding="utf-8")
    return spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the data and the runs; kept")
    parser.add_argument("--weights", required=True, help="weights to start from")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--img", type=int, default=640)
    parser.add_argument("--images", type=int, default=32)
    args = parser.parse_args()
    data = draw_dataset(args.work.absolute() / "data", {"train": args.images, "val": args.images // 2})
    for name, tile in (("whole", 0), ("tiles", args.img)):
        start = time.perf_counter()
        command = [sys.executable, "-m", "yolo_cli", "train", "--data", str(data), "--weights", args.weights]
        command += ["--img", str(args.img), "--epochs", str(args.epochs), "--tile", str(tile), "--noplots", "--noval"]
        command += ["--project", str(args.work.absolute()), "--name", name, "--exist-ok"]
        with (args.work / f"{name}.log").open("w", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=os.environ)
        metrics = json.loads((args.work / name / "results.json").read_text(encoding="utf-8"))["metrics"]
        values = {key: metrics[key] for key in ("mAP_0.5:0.95", "mAP_0.5", "mAP_small")}
        print(json.dumps({"run": name, "seconds": round(time.perf_counter() - start), **values}), flush=True)


if __name__ == "__main__":
    main()
