"""Boxes that are probably mistakes, and the distribution of classes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_checks.conftest import Dataset, photo
from yolo_cli.data_checks.boxes import DOUBLE_IOU, double_boxes
from yolo_cli.dataset.label_index import LabelIndex


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (("0 0.5 0.5 0.2 0.2", "0 0.501 0.5 0.2 0.2"), "double-box"),
        (("0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2"), "double-box"),
        (("0 0.5 0.5 0.003 0.003",), "tiny-box"),
        (("0 0.5 0.5 0.9 0.03",), "sliver"),
        (("0 0.5 0.5 1 1",), "full-box"),
    ],
)
def test_planted_boxes_are_found(dataset: Dataset, rows: tuple[str, ...], code: str) -> None:
    dataset.label("train", "3.jpg", *rows)
    (finding,) = dataset.check().findings
    assert (finding.code, finding.severity, finding.count) == (code, "warning", 1)
    assert finding.items[0].file.endswith("3.jpg")
    assert len(finding.items[0].views[0].marks) == len(rows)


def test_tiny_depends_on_the_image_size(dataset: Dataset) -> None:
    dataset.label("train", "3.jpg", "0 0.5 0.5 0.01 0.02")
    assert not dataset.find("tiny-box", img=(640, 640))
    assert dataset.find("tiny-box", img=(160, 160))


BOX = st.tuples(*[st.integers(10, 30)] * 2, *[st.integers(1, 20)] * 2)


@given(st.lists(st.tuples(st.integers(0, 1), BOX), max_size=12))
def test_double_boxes_are_those_of_brute_force(rows: list[tuple[int, tuple[int, ...]]]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4) / 40
    offsets = np.array([0, sum(i == 0 for i, _ in rows), len(rows)])
    index = LabelIndex(b"ab", np.arange(3), np.zeros((0, 3), np.int64), np.full((2, 2), 40, np.int32),
                       np.zeros(len(rows), np.int32), boxes, offsets, (), "")  # fmt: skip
    expected = {
        b
        for b in range(len(rows))
        for a in range(b)
        if rows[a][0] == rows[b][0] and iou(boxes[a].astype(float), boxes[b].astype(float)) > DOUBLE_IOU
    }
    assert set(double_boxes(index)[:, 1].tolist()) == expected


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / float(np.prod(a[2:]) + np.prod(b[2:]) - both)


def test_classes_that_are_missing_or_rare(dataset: Dataset) -> None:
    for i in range(3, 12):
        dataset.label("train", f"{i}.jpg", dataset.rows[0])
    for i in range(100, 110):
        dataset.label("val", f"{i}.jpg", dataset.rows[1])
    findings = dataset.check().findings
    assert [(f.code, f.split, f.items[0].detail) for f in findings] == [
        ("class-missing", "val", "cat"),
        ("class-rare", "train", "dog: 3 boxes"),
    ]


def test_imbalance(dataset: Dataset) -> None:
    for i in range(12):
        many = [f"0 {0.05 + 0.08 * k} {0.1 + 0.08 * i} 0.05 0.05" for k in range(11)]
        dataset.label("train", f"{i}.jpg", *many, *(dataset.rows[1:] if i == 0 else ()))
    assert [f.what for f in dataset.find("imbalance")] == ["cat has 132 times as many boxes as dog"]


def test_background(dataset: Dataset) -> None:
    for i in range(6):
        (dataset.root / f"labels/train/{i}.txt").unlink()
    assert not dataset.find("background")  # half, not more
    (dataset.root / "labels/train/6.txt").write_text("")
    (finding,) = dataset.find("background")
    assert (finding.split, finding.count) == ("train", 7)


def test_one_class_per_folder(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    for split in ("train", "val"):
        for file in [*(dataset.root / "images" / split).iterdir(), *(dataset.root / "labels" / split).iterdir()]:
            file.unlink()
        for class_id, name in enumerate(("cats", "dogs")):
            for i in range(10):
                seed = 1000 * class_id + 100 * (split == "val") + i
                dataset.add(split, f"{name}/{seed}.jpg", photo(seed), (f"{class_id} 0.5 0.5 0.4 0.4",))
    (finding,) = dataset.check().findings
    assert (finding.code, finding.count) == ("folder-per-class", 4)
