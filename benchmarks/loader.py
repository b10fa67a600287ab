"""Images per second of the training loader on one core: mosaic at 640, with and without a RAM cache.

Each side makes batches of 16 in one process with one thread, with the same augmentation settings (mosaic, affine, HSV,
flip), from copies of the same data, each image under several names, so that there are more of them than a loader keeps.
After two batches of another loader, one epoch is timed: in processor time (images per second of one core, whatever else
runs) and in wall-clock time. Ours makes mosaics of 512 neighbors, as `--hyp auto` does from 1,024 images on, yolov5 of
all images, and ultralytics, as it seems, of those that it has read last.
"""

import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Measure,
    add_data_options,
    alternate,
    answer,
    ask,
    copy_dataset,
    environment,
    options,
    peak_megabytes,
    peer_pythons,
    report,
    workplace,
)

IMG, BATCH, WARM = 640, 16, 2
IMAGES = 1536  # three times as many as our loader makes mosaics of
MEASURES = (
    Measure("no cache", "images/s of CPU", True, "3 × yolov5, 1.5 × ultralytics"),
    Measure("ram cache", "images/s of CPU", True, "3 × yolov5"),
    Measure("no cache, wall", "images/s", True),
    Measure("ram cache, wall", "images/s", True),
    Measure("peak memory", "MB", False),
)
# The published hyperparameters for low augmentation, by the names that all three sides share.
HYP = {
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.5,
    "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0,
    "fliplr": 0.5,
    "mosaic": 1.0,
    "mixup": 0.0,
}


def rate(make: Any, count: Any) -> tuple[float, float]:
    """Images per second over one epoch of a loader that `make` makes: of processor time, of wall-clock time."""
    for _ in itertools.islice(iter(make()), WARM):
        pass
    loader = make()
    start, busy, images = time.perf_counter(), time.process_time(), 0
    for batch in loader:
        images += count(batch)
    return images / (time.process_time() - busy), images / (time.perf_counter() - start)


def ours(data: str, cache: str) -> tuple[float, float]:
    import cv2

    from yolo_cli.config import Hyperparameters
    from yolo_cli.dataset.loader import train_loader
    from yolo_cli.dataset.splits import load_split, prepare_dataset
    from yolo_cli.progress import Silent

    cv2.setNumThreads(1)
    spec = prepare_dataset(data, Silent())
    split = load_split(spec, "train", single_cls=False, strict=False, workers=0, reporter=Silent())
    hyp = Hyperparameters(**HYP, mosaic_window=512)  # type: ignore[arg-type]
    make = partial(train_loader, split.index, img=(IMG, IMG), batch=BATCH, hyp=hyp, seed=0, workers=0, cache=cache)
    return rate(make, lambda batch: len(batch.images))


def yolov5(data: str, cache: str) -> tuple[float, float]:
    import cv2
    from yolov5.utils.dataloaders import create_dataloader

    cv2.setNumThreads(1)
    images = str(Path(data).parent / "images" / "train")
    hyp = HYP | {"copy_paste": 0.0}

    def make() -> Any:
        loader, _ = create_dataloader(
            images, IMG, BATCH, 32, hyp=hyp, augment=True, cache=cache or None, workers=0, shuffle=True
        )
        return loader

    return rate(make, lambda batch: len(batch[0]))


def ultralytics(data: str, cache: str) -> tuple[float, float]:
    import cv2
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    cv2.setNumThreads(1)
    cfg = get_cfg(overrides=HYP | {"imgsz": IMG, "cache": cache or False, "task": "detect", "erasing": 0.0})
    described = check_det_dataset(data)

    def make() -> Any:
        dataset = build_yolo_dataset(cfg, described["train"], BATCH, described, mode="train", stride=32)
        return build_dataloader(dataset, BATCH, 0, shuffle=True, rank=-1, pin_memory=False, device="cpu")

    return rate(make, lambda batch: len(batch["img"]))


SIDES = {OURS: ours, "yolov5": yolov5, "ultralytics": ultralytics}


def work(side: str, task: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    figures = {}
    for name, cache in (("no cache", ""), ("ram cache", "ram")):
        figures[name], figures[f"{name}, wall"] = SIDES[side](task["data"], cache)
    answer(figures | {"peak memory": peak_megabytes()})


def main() -> None:
    parser = options(__doc__, runs=3)
    add_data_options(parser)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, json.loads(args.task))
        return
    peers = peer_pythons(args.peers, ("yolov5", "ultralytics"))
    with workplace() as folder:
        # One copy per side, so that no side finds the cache of another.
        tasks = {
            name: {"data": str(copy_dataset(args.data, folder / name, at_least=IMAGES))} for name in (OURS, *peers)
        }
        sides = {
            name: lambda name=name, python=python: ask(
                python, __file__, name, tasks[name], environment(folder, peers.get(name), threads=1), folder
            )
            for name, python in {OURS: Path(sys.executable), **peers}.items()
        }
        rounds = alternate(sides, args.runs)
    settings = {"img": IMG, "batch": BATCH, "workers": 0, "threads": 1, "hyp": HYP, "runs": args.runs}
    report("loader", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
