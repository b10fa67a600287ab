"""Files and label rows that cannot be used, and labels that no image belongs to."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from yolo_cli.data_checks.findings import ERROR, WARNING, CheckedSplit, Finding, Item, View, count_of, listed
from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.dataset.label_index import Problem
from yolo_cli.dataset.scan import label_path
from yolo_cli.dataset.shards.urls import is_shard
from yolo_cli.io.file_tree import files_below

# How a problem of the label index is counted, by words of its message; the first that occurs. Others are syntax.
_ROW_KINDS = (
    ("duplicate row", "duplicate-rows"),
    ("out of range for", "label-class"),
    ("is negative", "label-class"),
    ("is outside", "label-range"),
    ("without width or height", "label-range"),
)
_SENTENCES = {
    "unreadable-image": ("image that cannot be read", "images that cannot be read"),
    "damaged-image": ("image with damaged data", "images with damaged data"),
    "missing-image": ("annotation of an image that is not there", "annotations of images that are not there"),
    "unreadable-label": ("label file that cannot be read", "label files that cannot be read"),
    "twice": ("image that is listed twice", "images that are listed twice"),
    "label-syntax": ("label row that cannot be parsed", "label rows that cannot be parsed"),
    "label-range": ("label row with values out of range", "label rows with values out of range"),
    "label-class": ("label row with a class that does not exist", "label rows with a class that does not exist"),
    "duplicate-rows": ("repeated label row", "repeated label rows"),
}
_NOT_LABELS = frozenset(("classes.txt", "obj.names.txt", "train.txt", "val.txt", "test.txt", "readme.txt"))


def check_problems(split: CheckedSplit) -> list[Finding]:
    """What the label index left out, and images whose pixels cannot all be decoded."""
    groups: dict[str, list[Item]] = {}
    for problem in split.index.problems:
        item = Item(problem.file, problem.line, problem.what)
        groups.setdefault(_kind(problem), []).append(item)
    if split.stats is not None:
        for kind, rows in (("unreadable-image", split.stats.cut_off), ("damaged-image", split.stats.damaged)):
            for row, what in sorted(rows.items()):
                item = Item(os.fspath(split.index.path(row)), 0, what, views=(View(split.name, row),))
                groups.setdefault(kind, []).append(item)
    return [
        Finding(
            kind,
            WARNING if kind in ("duplicate-rows", "damaged-image", "twice") else ERROR,
            split.name,
            len(groups[kind]),
            count_of(len(groups[kind]), *sentence),
            listed(groups[kind]),
        )
        for kind, sentence in _SENTENCES.items()
        if kind in groups
    ]


def check_orphans(splits: Iterable[CheckedSplit]) -> list[Finding]:
    """Label files in the label folders of a split that belong to no image file."""
    findings = []
    claimed: set[str] = set()  # of a folder that two splits share, orphans are listed once
    for split in splits:
        orphans = [file for file in _orphans(split) if file not in claimed]
        claimed.update(orphans)
        if orphans:
            what = count_of(len(orphans), "label file without an image", "label files without an image")
            items = listed(Item(file) for file in orphans)
            findings.append(Finding("label-without-image", ERROR, split.name, len(orphans), what, items))
    return findings


def _kind(problem: Problem) -> str:
    if problem.line or "more bad rows" in problem.what:
        return next((kind for words, kind in _ROW_KINDS if words in problem.what), "label-syntax")
    if "twice" in problem.what:
        return "twice"
    if problem.what.startswith("no image"):
        return "missing-image"
    return "unreadable-image" if _is_image(problem.file) else "unreadable-label"


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES or is_shard(file) or os.path.isdir(file)


def _orphans(split: CheckedSplit) -> Iterator[str]:
    images = [file for file in split.files if not is_shard(file)]
    expected = {label_path(file) for file in images}
    folders = {os.path.dirname(file) for file in images}
    tops = {folder for folder in folders if not any(parent in folders for parent in _parents(folder))}
    for top in sorted(tops):
        labels = os.path.dirname(label_path(os.path.join(top, "x.jpg")))
        for file in sorted(files_below(Path(labels), frozenset((".txt",)))[0]):
            if file in expected or _has_image(os.path.join(top, os.path.relpath(file, labels))):
                continue
            if labels != top or _has_labels(file):
                yield file


def _has_image(file: str) -> bool:
    """Whether there is an image beside `file` that differs in its suffix only. The split may not name it."""
    stem = os.path.splitext(file)[0]
    return any(os.path.exists(stem + case) for suffix in SUFFIXES for case in (suffix, suffix.upper()))


def _parents(folder: str) -> Iterator[str]:
    while (parent := os.path.dirname(folder)) != folder:
        yield parent
        folder = parent


def _has_labels(file: str) -> bool:
    """Whether a txt file beside images is a label file, not a list or a note: it starts with a row of numbers."""
    if os.path.basename(file).lower() in _NOT_LABELS:
        return False
    try:
        with open(file, "rb") as opened:
            tokens = opened.read(4096).split(b"\n", 1)[0].split()
        return len(tokens) >= 5 and bool(np.isfinite([float(token) for token in tokens]).all())
    except (OSError, ValueError):
        return False
