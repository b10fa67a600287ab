"""The distribution of classes over splits, images and folders."""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from yolo_cli.data_checks.boxes import image_of_boxes
from yolo_cli.data_checks.findings import WARNING, CheckedSplit, Finding, Item, count_of, listed

RARE = 10  # boxes in the training split
IMBALANCE = 100  # boxes of the most frequent class per box of the rarest
_MIN_IMAGES_PER_FOLDER = 5


def check_classes(splits: Sequence[CheckedSplit], names: tuple[str, ...]) -> list[Finding]:
    """Classes without boxes or with few, imbalance, background, and folders that hold one class each."""
    findings = []
    for split in splits:
        if not len(split.index):
            continue
        counts = np.bincount(split.index.classes, minlength=len(names))
        findings += _missing(split.name, counts, names)
        if split.name == "train":
            findings += _rare(counts, names) + _imbalance(counts, names)
        findings += _background(split)
    return findings + _folders(splits, names)


def _missing(split: str, counts: Int[np.ndarray, " classes"], names: tuple[str, ...]) -> list[Finding]:
    missing = np.flatnonzero(counts == 0).tolist()
    if not missing:
        return []
    what = f"{count_of(len(missing), 'class', 'classes')} without a box"
    return [Finding("class-missing", WARNING, split, len(missing), what, listed(_item(names[i]) for i in missing))]


def _rare(counts: Int[np.ndarray, " classes"], names: tuple[str, ...]) -> list[Finding]:
    rare = np.flatnonzero((counts > 0) & (counts < RARE)).tolist()
    if not rare:
        return []
    what = f"{count_of(len(rare), 'class', 'classes')} with fewer than {RARE} boxes"
    items = listed(_item(names[i], count_of(int(counts[i]), "box", "boxes")) for i in rare)
    return [Finding("class-rare", WARNING, "train", len(rare), what, items)]


def _imbalance(counts: Int[np.ndarray, " classes"], names: tuple[str, ...]) -> list[Finding]:
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return []
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = counts[most] / counts[least]
    if ratio <= IMBALANCE:
        return []
    what = f"{names[most]} has {ratio:.0f} times as many boxes as {names[least]}"
    return [Finding("imbalance", WARNING, "train", 1, what)]


def _background(split: CheckedSplit) -> list[Finding]:
    empty = np.flatnonzero(np.diff(split.index.offsets) == 0)
    if 2 * len(empty) <= len(split.index):
        return []
    what = f"{count_of(len(empty), 'image')} without boxes, of {len(split.index):,}"
    items = listed(Item(os.fspath(split.index.path(i))) for i in empty.tolist())
    return [Finding("background", WARNING, split.name, len(empty), what, items)]


def _folders(splits: Sequence[CheckedSplit], names: tuple[str, ...]) -> list[Finding]:
    """Folders of images, over all splits, that hold one class each although there are several."""
    images: dict[str, set[int]] = {}
    classes: dict[str, set[int]] = {}
    for split in splits:
        rows = image_of_boxes(split.index)
        used, first = np.unique(np.stack([rows, split.index.classes], axis=1), axis=0, return_index=True)
        folder_of = {row: os.path.dirname(split.index.path(row)) for row in np.unique(rows).tolist()}
        for row, class_id in used.tolist() if len(first) else ():
            folder = folder_of[row]
            classes.setdefault(folder, set()).add(class_id)
            images.setdefault(folder, set()).add(row)
    if len(classes) < 2 or any(len(found) > 1 for found in classes.values()):
        return []
    large = [folder for folder, rows in images.items() if len(rows) >= _MIN_IMAGES_PER_FOLDER]
    if len({next(iter(classes[folder])) for folder in large}) < 2:
        return []
    items = listed(Item(folder, 0, f"only {names[next(iter(classes[folder]))]}") for folder in sorted(large))
    what = f"each of {len(large)} folders holds one class"
    return [Finding("folder-per-class", WARNING, "all", len(large), what, items)]


def _item(name: str, detail: str = "") -> Item:
    return Item("", 0, f"{name}: {detail}" if detail else name)
