"""Index of 100,000 label files: time of the first scan and of the second start, and memory.

The script generates the files (tiny JPEGs of six sizes with one to twelve boxes each, deterministic). Each side scans
them as its training does: ours with one process per core, yolov5 with the number that it chooses. Memory is private
memory (Private_* in smaps_rollup), so shared libraries do not count: its growth in the main process by the index, and
its growth in a forked worker that reads every entry in shuffled order, epoch by epoch. Our worker also loads every
tenth image as a sample, on a small canvas.
"""

import gc
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Measure,
    alternate,
    answer,
    ask,
    environment,
    options,
    peak_megabytes,
    peer_pythons,
    report,
    workplace,
)

EPOCHS = 3
MEASURES = (
    Measure("first scan", "s", False, "yolov5 / 10"),
    Measure("second start", "s", False),
    Measure("index, private memory", "MB", False, "under 200 MB"),
    Measure("peak of the main process, in total", "MB", False),
    *(Measure(f"worker's growth, epoch {i + 1}", "MB", False, "flat") for i in range(EPOCHS)),
)
Opened = tuple[Callable[[int], object], int]  # a function that reads an entry, and the number of entries


def make_files(folder: Path, count: int) -> None:
    """Write `count` images and label files, two thousand per folder."""
    import numpy as np
    import simplejpeg

    choice = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    images = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[:h, :w]), quality=50)
        for h, w in ((16, 16), (16, 24), (24, 16), (24, 32), (32, 24), (32, 48))
    ]
    for i in range(count):
        if i % 2000 == 0:
            folders = [folder / kind / f"{i // 2000:03d}" for kind in ("images", "labels")]
            for part in folders:
                part.mkdir(parents=True)
        (folders[0] / f"{i:06d}.jpg").write_bytes(images[i % len(images)])
        rows = [
            f"{choice.randrange(80)} {choice.uniform(0.3, 0.7):.6f} {choice.uniform(0.3, 0.7):.6f} "
            f"{choice.uniform(0.05, 0.5):.6f} {choice.uniform(0.05, 0.5):.6f}\n"
            for _ in range(choice.randint(1, 12))
        ]
        (folders[1] / f"{i:06d}.txt").write_text("".join(rows))


def open_ours(folder: str) -> Opened:
    from yolo_cli.dataset.label_index import build_index
    from yolo_cli.dataset.sampler import SampleKey
    from yolo_cli.dataset.samples import DetectionDataset
    from yolo_cli.device import default_workers
    from yolo_cli.io.cache_dir import user_cache_folder

    images = sorted(Path(folder, "images").rglob("*.jpg"))
    workers = default_workers(-1, 16)
    index = build_index(images, 80, strict=False, cache_dir=user_cache_folder(), workers=workers, progress=None)
    dataset = DetectionDataset(index, (32, 32))

    def read(i: int) -> object:
        if i % 10 == 0:
            return dataset.batch([SampleKey(0, i, 0, 32, 32)])
        return index.path(i), index.labels(i), index.sizes[i]

    return read, len(index)


def open_yolov5(folder: str) -> Opened:
    from yolov5.utils.dataloaders import LoadImagesAndLabels

    dataset = LoadImagesAndLabels(str(Path(folder, "images")), 640, 16, augment=True)
    return lambda i: (dataset.im_files[i], dataset.label_index[i].copy(), dataset.shapes[i]), len(dataset)


SIDES = {OURS: open_ours, "yolov5": open_yolov5}


def private_megabytes() -> float:
    """This process's private memory; where the kernel does not report it, its peak."""
    file = Path("/proc/self/smaps_rollup")
    if not file.exists():
        return peak_megabytes()
    lines = [line.split() for line in file.read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0].startswith("Private_")) / 1024


def epochs(read: Callable[[int], object], count: int, pipe: Any) -> None:
    """Run as a worker: send the growth of private memory after each epoch over all entries."""
    order, growth = list(range(count)), []
    for i in order[:10]:  # allocate what is needed once, such as buffers of the decoder
        read(i)
    random.Random(0).shuffle(order)
    start = private_megabytes()
    for _ in range(EPOCHS):
        for i in order:
            read(i)
        growth.append(private_megabytes() - start)
    pipe.send(growth)


def work(side: str, task: dict[str, str]) -> None:
    if side == OURS:
        import yolo_cli.dataset.loader  # noqa: F401 - the memory of the libraries is not part of the index
    else:
        import yolov5.utils.dataloaders  # noqa: F401
    gc.collect()
    before, start = private_megabytes(), time.perf_counter()
    read, count = SIDES[side](task["folder"])
    figures = {task["figure"]: time.perf_counter() - start}
    if task["figure"] == "first scan":
        answer(figures)
        return
    gc.collect()
    figures["index, private memory"] = private_megabytes() - before
    figures["peak of the main process, in total"] = peak_megabytes()
    gc.freeze()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    worker = context.Process(target=epochs, args=(read, count, sender))
    worker.start()
    growth = receiver.recv()
    worker.join()
    answer(figures | {f"worker's growth, epoch {i + 1}": value for i, value in enumerate(growth)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, runs=1)
    parser.add_argument("--files", type=int, default=100_000)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args.worker, json.loads(args.task))
        return
    peers = peer_pythons(args.peers, ("yolov5",))
    with workplace() as folder:
        print(f"making {args.files:,} images and label files")
        make_files(folder / "data", args.files)
        pythons = {OURS: Path(sys.executable), **peers}

        def both(name: str) -> dict[str, float]:
            """A first scan without any cache, then a second start and its memory."""
            for cache in [folder / "yolo_cli_cache", *(folder / "data").rglob("*.cache")]:
                if cache.exists():
                    os.rename(cache, folder / f"old{time.monotonic_ns()}")
            figures: dict[str, float] = {}
            for figure in ("first scan", "second start"):
                task = {"folder": str(folder / "data"), "figure": figure}
                env = environment(folder, peers.get(name))
                figures |= ask(pythons[name], __file__, name, task, env, folder)
            return figures

        rounds = alternate({name: partial(both, name) for name in pythons}, args.runs)
        settings = {"files": args.files, "epochs": EPOCHS, "runs": args.runs}
        report("label_index", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
