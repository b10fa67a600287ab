"""`yolo check`: planted faults that it finds, what it says about sound datasets, and its time.

Faults are planted in copies of cards and raccoon, in a temporary folder: exact ones (broken files, bad rows, leaks),
changed copies of training images in the validation split, and label errors in a tenth of the boxes. For the last, two
models are trained for each dataset, each on one half of the images with the wrong labels (about ten minutes in all on
two idle cores); `--epochs 0` leaves that out. Times are of coco128's photographs, of 100,000 small generated files with
`--no-images`, and of the search for near-duplicates among 100,000 thumbnails.
"""

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from label_index import make_files
from planted_faults import (
    COPIES,
    Planted,
    copy_dataset,
    plant_copies,
    plant_exact,
    plant_label_errors,
    write_folds,
)

NAMES = {"cards": ["ace", "jack", "king", "nine", "queen", "ten"], "raccoon": ["raccoon"]}
SAME_PLACE = 0.3  # IoU from which a suspect is the planted error


def yolo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "yolo_cli", *arguments], capture_output=True, text=True, check=False)


def check(spec: Path, *options: str) -> dict[str, Any]:
    """The JSON object of `yolo check`."""
    ended = yolo("check", "--data", str(spec), "--json", "--no-html", "--no-advice", *options)
    if not ended.stdout:
        raise RuntimeError(ended.stderr)
    return json.loads(ended.stdout)


def found(result: dict[str, Any], code: str) -> int:
    return sum(finding["count"] for finding in result["findings"] if finding["code"] == code)


def exact_faults(source: Path, folder: Path, seed: int) -> dict[str, str]:
    """Per kind, the planted faults that are found; the kinds that are also in the sound dataset are the difference."""
    sound = check(source / "data.yaml")
    spec = copy_dataset(source, folder)
    planted = plant_exact(folder, 8, seed)
    result = check(spec)
    return {code: f"{found(result, code) - found(sound, code)} of {number}" for code, number in planted.items()}


def copies(source: Path, folder: Path, kind: str, count: int, seed: int) -> str:
    spec = copy_dataset(source, folder)
    planted = plant_copies(folder, kind, count, seed)
    result = check(spec)
    items = [item for f in result["findings"] if f["code"] in ("near-duplicate", "leak") for item in f["items"]]
    hits = {Path(item[key]).name for item in items for key in ("file", "other")} & planted
    return f"{len(hits)} of {count}"


def label_errors(source: Path, folder: Path, name: str, seed: int, epochs: int, weights: str) -> str:
    spec = copy_dataset(source, folder)
    planted = plant_label_errors(folder, 0.1, len(NAMES[name]), seed)
    for i, fold in enumerate(write_folds(folder, NAMES[name])):
        ended = yolo("train", "--data", str(fold), "--weights", weights, "--epochs", str(epochs), "--img", "320",
                     "--noplots", "--noval", "--project", str(folder / "runs"), "--name", f"fold{i}")  # fmt: skip
        if ended.returncode:
            raise RuntimeError(ended.stderr)
    result = check(spec, "--weights", str(folder / "runs" / "fold*"))
    return f"{suspects_in_top(result, planted)} of {len(planted)}"


def suspects_in_top(result: dict[str, Any], planted: list[Planted]) -> int:
    """How many of the k planted errors are among the first 2k suspects of the training split, of all kinds."""
    import cv2

    rows = [
        item
        for finding in result["findings"]
        if finding["severity"] == "suspect" and finding["split"] == "train"
        for item in finding["items"]
    ]
    top = sorted(rows, key=lambda item: -item["score"])[: 2 * len(planted)]
    hits = 0
    for each in planted:
        for item in top:
            place = re.search(r" at ([-\d. ]+), score", item["detail"])
            if Path(item["file"]).stem != each.image or place is None:
                continue
            height, width = cv2.imread(item["file"]).shape[:2]  # type: ignore[union-attr]
            cx, cy, w, h = each.box
            box = ((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height)
            if iou(box, tuple(map(float, place[1].split()))) > SAME_PLACE:
                hits += 1
                break
    return hits


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def pixel_time(source: Path) -> float:
    """Milliseconds of CPU time per photograph."""
    from yolo_cli.data_checks.image_stats import measure_images
    from yolo_cli.dataset.label_index import build_index

    images = sorted((source / "images").rglob("*.jpg"))
    index = build_index(images, 80, strict=False, cache_dir=None, workers=0, progress=None)
    start = time.process_time()
    measure_images(index, threads=2, advance=lambda: None)
    return 1000 * (time.process_time() - start) / len(index)


def search_time(count: int) -> float:
    """Seconds to search near-duplicates among thumbnails of smooth random images."""
    import cv2
    import numpy as np

    from yolo_cli.data_checks.similar_images import similar_pairs

    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 6, 6), dtype=np.uint8)
    thumbs = np.stack([cv2.resize(each, (32, 32), interpolation=cv2.INTER_CUBIC) for each in coarse])
    start = time.perf_counter()
    similar_pairs(thumbs, np.ones(count, dtype=bool), [f"{i:07}" for i in range(count)])
    return time.perf_counter() - start


def labels_time(folder: Path, count: int) -> float:
    """Seconds of `yolo check --no-images`, the second time; each image has its own comment, so no two are equal."""
    make_files(folder, count)
    for i, file in enumerate(sorted((folder / "images").rglob("*.jpg"))):
        data = file.read_bytes()
        file.write_bytes(data[:2] + b"\xff\xfe" + struct.pack(">HI", 6, i) + data[2:])
    spec = folder / "data.yaml"
    spec.write_text("path: .\ntrain: images\nval: images/000\nnc: 80\n")
    check(spec, "--no-images")
    start = time.perf_counter()
    check(spec, "--no-images")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reference = os.environ.get("YOLO_REFERENCE_DIR", "")
    parser.add_argument("--datasets", default=f"{reference}/datasets", help="folder of coco128, cards and raccoon")
    parser.add_argument("--weights", default=f"{reference}/weights/yolox_nano.pth", help="to train from")
    parser.add_argument("--epochs", type=int, default=12, help="of the models that look for label errors; 0: none")
    parser.add_argument("--files", type=int, default=100_000, help="generated files and thumbnails")
    parser.add_argument("--copies", type=int, default=60, help="planted copies of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file to write all figures to")
    args = parser.parse_args()
    datasets = Path(args.datasets).resolve()
    figures: dict[str, object] = {}

    def report(name: str, value: object) -> None:
        figures[name] = value
        print(f"{name:60} {value}", flush=True)

    with tempfile.TemporaryDirectory() as work:
        for name in ("coco128", "cards", "raccoon"):
            result = check(datasets / name / "data.yaml")
            places = {
                f["code"]: f["count"] for f in result["findings"] if f["code"] in ("near-duplicate", "video-frames")
            }
            report(f"{name}, unchanged: errors, near-duplicates", (result["errors"], places))
        for name in NAMES:
            folder = Path(work) / name
            for code, hits in exact_faults(datasets / name, folder / "exact", args.seed).items():
                report(f"{name}: {code}", hits)
            for kind in COPIES:
                report(f"{name}: {kind}", copies(datasets / name, folder / kind, kind, args.copies, args.seed))
            if args.epochs:
                errors = label_errors(datasets / name, folder / "labels", name, args.seed, args.epochs, args.weights)
                report(f"{name}: label errors in the first 2k", errors)
        report("coco128: CPU ms per image with pixels", round(pixel_time(datasets / "coco128"), 2))
        report(f"{args.files:,} thumbnails: seconds of the search", round(search_time(args.files), 1))
        report(f"{args.files:,} files, --no-images: seconds", round(labels_time(Path(work) / "many", args.files), 1))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
