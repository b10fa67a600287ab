"""YOLO txt labels: one file per image, rows of class, cx, cy, w, h as fractions of the image. Read by `yolo_labels`."""

import os
from collections.abc import Sequence
from pathlib import Path

from yolo_cli.dataset.entries import SplitEntry
from yolo_cli.dataset.formats.records import Record
from yolo_cli.dataset.ignore_regions import ANY_CLASS
from yolo_cli.dataset.scan import label_path

IMAGES = "images"


def write(records: Sequence[Record], split: str, names: Sequence[str], folder: Path) -> SplitEntry:
    """Write `labels/SPLIT/*.txt`, empty ones for background. Numbers have the digits that a float32 needs.

    A region to be ignored is one for all classes here, so those of several classes at one place become one.
    """
    for record in records:
        rows = [
            " ".join([str(max(class_id, ANY_CLASS)), *(str(value).removesuffix(".0") for value in box)]) + "\n"
            for class_id, box in zip(record.classes.tolist(), record.boxes, strict=True)
        ]
        rows = list(dict.fromkeys(rows))
        path = Path(label_path(os.path.join(folder, IMAGES, split, record.name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(rows), encoding="ascii")
    return SplitEntry(f"{IMAGES}/{split}")
