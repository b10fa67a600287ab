"""Time and memory for a dataset of a million images: start-up, shuffling, sampling, loading, evaluation.

The index is synthetic: about seven boxes per image, with the paths of a few thousand real, tiny images, so that workers
can load them. The folder that is scanned is real and smaller, and extrapolated figures are marked. Every part runs in
its own process. Times are processor times, which depend less on other load; those of workers, which are several
processes, are wall-clock times. The files are in the page cache. Memory: "private" belongs to one process alone (USS),
"proportional" divides shared memory among its users (PSS), "peak" is the growth of the largest resident size.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from label_index import make_files
from side_by_side import peak_megabytes

CLASSES, BOXES, BATCH = 80, 7, 16
REAL = 2000  # image files that the synthetic index refers to
Row = tuple[str, str]


def rollup(process: int | str = "self") -> dict[str, float]:
    """Megabytes of a process: private (USS), proportional (PSS), resident."""
    lines = [line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]]
    size = {line[0]: int(line[1]) / 1024 for line in lines}
    private = size["Private_Clean:"] + size["Private_Dirty:"]
    return {"private": private, "proportional": size["Pss:"], "resident": size["Rss:"]}


class Cost:
    """Processor time in seconds and peak memory in MB of a block."""

    seconds = peak = 0.0

    def __str__(self) -> str:
        return f"{clock(self.seconds)}, peak +{self.peak:.0f} MB"


@contextlib.contextmanager
def costs() -> Iterator[Cost]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, cost, start = rollup()["resident"], Cost(), time.process_time()
    yield cost
    cost.seconds = time.process_time() - start
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    cost.peak = int(high.split()[1]) / 1024 - before


def clock(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def extrapolated(seconds: float, times: float) -> str:
    return f"{clock(seconds)}; extrapolated {clock(seconds * times)}"


def synthetic_index(folder: Path, images: int) -> Any:
    """An index of `images` images with about seven boxes each."""
    import numpy as np

    from yolo_cli.dataset.label_index import LabelIndex, _fingerprint, _offsets, replace

    chance = np.random.default_rng(0)
    real = [os.fsencode(file) for file in sorted((folder / "data/images").rglob("*.jpg"))[:REAL]]
    names = [real[i % len(real)] for i in range(images)]
    counts = chance.poisson(BOXES, images)
    boxes = int(counts.sum())
    index = LabelIndex(
        paths=b"".join(names),
        path_offsets=_offsets(np.array([len(name) for name in names], np.int64)),
        spans=np.zeros((0, 3), np.int64),
        sizes=chance.integers(300, 640, (images, 2), np.int32),
        classes=chance.integers(CLASSES, size=boxes, dtype=np.int32),
        boxes=chance.uniform(0.1, 0.5, (boxes, 4)).astype(np.float32),
        offsets=_offsets(counts.astype(np.int64)),
        problems=(),
        fingerprint="",
    )
    return replace(index, fingerprint=_fingerprint(index))


def load_index(folder: Path) -> Any:
    from yolo_cli.dataset.label_index import load_cache

    stored = load_cache(folder / "index.npz", "scale")
    return stored and stored[0]


def part_index(folder: Path, images: int, _: argparse.Namespace) -> list[Row]:
    from yolo_cli.dataset import label_index

    index = synthetic_index(folder, images)
    with costs() as saved:
        label_index.save_cache(folder / "index.npz", "scale", index)
    with costs() as fingerprint:
        label_index._fingerprint(index)
    del index
    gc.collect()
    before = rollup()["private"]
    with costs() as loaded:
        index = load_index(folder)
    held = rollup()["private"] - before
    with costs() as single:
        index.single_cls()
    size = (folder / "index.npz").stat().st_size / 2**20
    return [
        ("index in memory, private", f"{held:.0f} MB ({len(index.boxes) / 1e6:.1f} million boxes)"),
        ("saving the label cache", f"{saved}; file {size:.0f} MB"),
        ("loading the label cache", str(loaded)),
        ("fingerprint that resuming compares", str(fingerprint)),
        ("`--single-cls`", str(single)),
    ]


def part_folder(folder: Path, images: int, args: argparse.Namespace) -> list[Row]:
    """What needs real files: the cost is per file, so it is extrapolated linearly."""
    from yolo_cli.dataset import label_index
    from yolo_cli.dataset.spec import load_spec, split_files

    (folder / "data.yaml").write_text(f"path: {folder}/data\ntrain: images\nnc: {CLASSES}\n")
    spec = load_spec(str(folder / "data.yaml"))
    with costs() as listed:
        files = split_files(spec, "train")
    with costs() as states:
        label_index._state_hash(files)
    build: Callable[[], Any] = lambda: label_index.build_index(  # noqa: E731
        files, CLASSES, strict=False, cache_dir=folder / "cache", workers=1, progress=None
    )
    with costs() as first:
        build()
    with costs() as second:
        build()
    times = images / len(files)

    def scaled(cost: Cost) -> str:
        return extrapolated(cost.seconds, times)

    return [
        (f"listing a folder of {len(files):,}", f"{scaled(listed)}, peak +{listed.peak * times:.0f} MB"),
        ("first scan of it, one process", scaled(first)),
        ("checking every file for changes", scaled(states)),
        ("second start (checking and loading)", scaled(second)),
    ]


def part_shards(folder: Path, images: int, _: argparse.Namespace) -> list[Row]:
    """The same real files in tar shards of 5,000 images, each followed by its label."""
    from yolo_cli.dataset.label_index import build_index
    from yolo_cli.dataset.scan import label_path

    files = sorted(str(file) for file in (folder / "data/images").rglob("*.jpg"))
    shards = []
    for start in range(0, len(files), 5000):
        shards.append(folder / f"shard-{start:07d}.tar")
        with tarfile.open(shards[-1], "w") as shard:
            for file in files[start : start + 5000]:
                shard.add(file, os.path.basename(file))
                shard.add(label_path(file), os.path.basename(label_path(file)))
    build: Callable[[Any, str], Any] = lambda of, cache: build_index(  # noqa: E731
        of, CLASSES, strict=False, cache_dir=folder / cache, workers=1, progress=None
    )
    with costs() as first:
        packed = build(shards, "cache")
    with costs() as second:
        build(shards, "cache")
    loose = build(files, "cache")
    order = [int(i) for i in random.Random(0).sample(range(len(loose)), min(20000, len(loose)))]
    read = {}
    for name, index in (("files", loose), ("shards", packed)):
        with costs() as cost:
            for i in order:
                index.content(i)
        read[name] = cost.seconds / len(order) * 1e6
    times = images / len(files)
    return [
        (f"first scan of {len(shards)} shards, one process", extrapolated(first.seconds, times)),
        ("second start from shards", extrapolated(second.seconds, times)),
        (
            "reading an image's bytes in random order, from its file → from its shard",
            f"{read['files']:.0f} → {read['shards']:.0f} µs",
        ),
    ]


def part_sampler(folder: Path, images: int, _: argparse.Namespace) -> list[Row]:
    from yolo_cli.anchors.score import training_sizes
    from yolo_cli.dataset.sampler import EpochBatchSampler, image_weights, rect_canvases

    index = load_index(folder)
    rows: list[Row] = []

    def epoch(what: str, batches: EpochBatchSampler) -> None:
        batches.set_epoch(1)
        with costs() as first:
            iterator = iter(batches)
            next(iterator)
        with costs() as rest:
            for _ in iterator:
                pass
        batches.set_epoch(1, len(batches) // 2)
        with costs() as middle:
            next(iter(batches))
        rows.append((f"{what}: to the first batch", str(first)))
        rows.append((f"{what}: the rest of the epoch", clock(rest.seconds)))
        rows.append((f"{what}: resumed in the middle, to the first batch", clock(middle.seconds)))

    canvas = (640, 640)
    plain = EpochBatchSampler(images, BATCH, canvas, seed=0, shuffle=True)
    epoch("shuffle", plain)
    with costs() as length:
        len(plain)
    rows.append(("number of batches", clock(length.seconds)))
    epoch(
        "shuffle, one of 8 ranks", EpochBatchSampler(images, BATCH, canvas, seed=0, shuffle=True, rank=3, world_size=8)
    )
    with costs() as weighing:
        weights = image_weights(index, CLASSES)
    rows.append(("`--image-weights`: weights of the images", str(weighing)))
    epoch("`--image-weights`", EpochBatchSampler(images, BATCH, canvas, seed=0, shuffle=True, weights=weights))
    with costs() as canvases:
        rect = rect_canvases(index.sizes, canvas, 32, 0.0)
    rows.append(("`--rect`: canvases", str(canvases)))
    with costs() as slots:
        batches = EpochBatchSampler(images, BATCH, canvas, seed=0, shuffle=True, canvases=rect)
    rows.append(("`--rect`: batches", str(slots)))
    epoch("`--rect`", batches)
    with costs() as sizes:
        training_sizes(index, canvas)
    rows.append(("box sizes for the anchor check", str(sizes)))
    with costs() as paths:
        found = [index.path(i) for i in range(len(index))]
    rows.append((f"{len(found):,} path objects (`yolo val` reads COCO ids from them)", str(paths)))
    return rows


def part_workers(folder: Path, images: int, args: argparse.Namespace) -> list[Row]:
    """Private memory of loader workers that have read all over the index; first with a tiny index."""
    from yolo_cli.config import Hyperparameters
    from yolo_cli.dataset.loader import train_loader

    found: dict[int, dict[str, float]] = {}
    for count in (64, images):
        index = synthetic_index(folder, count) if count != images else load_index(folder)
        loader = train_loader(index, img=(64, 64), batch=64, hyp=Hyperparameters(), seed=0, workers=args.workers)
        loader.multiprocessing_context = multiprocessing.get_context(args.method)
        start = time.perf_counter()
        epoch = 0
        iterator = iter(loader)
        next(iterator)
        found[count] = {"first batch": time.perf_counter() - start}
        for _ in range(args.batches):
            try:
                next(iterator)
            except StopIteration:
                epoch += 1
                loader.set_epoch(epoch)
                iterator = iter(loader)
        pids = [process.pid for process in multiprocessing.active_children() if process.pid]
        sizes = [rollup(pid) for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().find(b"resource_tracker") < 0]
        for kind in ("private", "proportional", "resident"):
            found[count][kind] = sum(size[kind] for size in sizes) / len(sizes)
        found[count]["own"] = rollup()["private"]
        del iterator, loader, index
        gc.collect()
    tiny, large = found[64], found[images]
    grown = large["private"] - tiny["private"]
    return [
        (
            f"{args.method}: a worker, private",
            f"{tiny['private']:.0f} → {large['private']:.0f} MB (+{grown:.0f}), "
            f"proportional {tiny['proportional']:.0f} → {large['proportional']:.0f} MB",
        ),
        (
            f"{args.method}: {args.workers} workers started, to the first batch",
            f"{clock(tiny['first batch'])} → {clock(large['first batch'])}",
        ),
    ]


def part_evaluator(folder: Path, images: int, args: argparse.Namespace) -> list[Row]:
    import numpy as np
    from evaluator import UPDATE
    from evaluator import synthetic_boxes as detections

    from yolo_cli.batch import Detections
    from yolo_cli.evaluation.evaluator import Evaluator

    data = detections(2000)
    evaluator = Evaluator([str(i) for i in range(CLASSES)])
    # Equal confidences would sort faster than those of different images.
    moved = np.random.default_rng(0).uniform(0.9, 1, args.evaluated).astype(np.float32)
    with costs() as fed:
        for first in range(0, args.evaluated, UPDATE):
            part = [data[i % len(data)] for i in range(first, min(first + UPDATE, args.evaluated))]
            evaluator.update(
                range(first + 1, first + len(part) + 1),
                [(640, 640)] * len(part),
                [truths for truths, _, _ in part],
                [
                    Detections(rows[:, :4], rows[:, 4] * float(moved[i]), class_id)
                    for i, (_, rows, class_id) in enumerate(part, start=first)
                ],
            )
    with costs() as computed:
        evaluator.compute()
    return [
        (f"evaluator, {args.evaluated:,} images × {len(data[0][1])} detections: matching", str(fed)),
        ("evaluator: computing the metrics", str(computed)),
        ("evaluator: peak of the process, with torch", f"{peak_megabytes():.0f} MB"),
    ]


PARTS = {
    "index": part_index,
    "folder": part_folder,
    "shards": part_shards,
    "sampler": part_sampler,
    "workers": part_workers,
}
PARTS["evaluator"] = part_evaluator


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=50_000, help="in the real folder")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batches", type=int, default=300, help="batches of 64 mosaics before a worker is measured")
    parser.add_argument("--evaluated", type=int, default=50_000, help="images for the evaluator")
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=[*PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.part:
        print(json.dumps(PARTS[args.part](args.folder, args.images, args)))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="yolo_cli_scale_") as name:
        make_files(Path(name) / "data", args.files if {"folder", "shards"} & {*args.parts} else REAL)
        words = [sys.executable, __file__, *(arguments or sys.argv[1:]), "--folder", name]
        for part in dict.fromkeys(["index", *args.parts]):
            for method in multiprocessing.get_all_start_methods() if part == "workers" else [""]:
                asked = [*words, "--part", part, "--method", method]
                done = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True)
                rows += [(what, figure) for what, figure in json.loads(done.stdout.splitlines()[-1])]
    print(f"| {args.images:,} images | |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")
    if args.json:
        args.json.write_text(json.dumps({"images": args.images, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
