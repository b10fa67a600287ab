"""Scans the files of a split, in several processes where there are many."""

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from yolo_cli.dataset.scan import ScanResult, scan_files, scan_shard
from yolo_cli.dataset.shards.urls import is_shard

_IMAGES_PER_SCAN = 1000
_MIN_IMAGES_FOR_PROCESSES = 10_000  # below, starting processes takes longer than they save


def scan_groups(files: Sequence[str]) -> list[Sequence[str]]:
    """What is read at a time: a shard, or consecutive image files."""
    groups: list[Sequence[str]] = []
    for shards, part in itertools.groupby(files, is_shard):
        run, size = list(part), 1 if shards else _IMAGES_PER_SCAN
        groups += [run[start : start + size] for start in range(0, len(run), size)]
    return groups


def scan_all(groups: list[Sequence[str]], nc: int, workers: int) -> Iterator[ScanResult]:
    """Read each of the groups; `workers` processes do so where that pays."""
    done = 0
    large = sum(map(len, groups)) >= _MIN_IMAGES_FOR_PROCESSES or sum(is_shard(group[0]) for group in groups) > workers
    if workers > 1 and large:
        # If a worker is killed (memory) or cannot start (no `__main__` file), this process reads the rest.
        with (
            contextlib.suppress(BrokenProcessPool, OSError),
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context()) as pool,
        ):
            for scan in pool.map(_scan, groups, [nc] * len(groups)):
                done += 1
                yield scan
    for group in groups[done:]:
        yield _scan(group, nc)


def _scan(files: Sequence[str], nc: int) -> ScanResult:
    return scan_shard(files[0], nc) if is_shard(files[0]) else scan_files(files, nc)
