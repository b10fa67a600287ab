"""Regions to be ignored: from label files through augmentation to batches and metrics."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.recording import Recording
from yolo_cli.batch import Detections
from yolo_cli.commands.convert_dataset import convert_dataset
from yolo_cli.config import ConvertConfig, Hyperparameters
from yolo_cli.dataset.label_index import LabelIndex, build_index, merge_indexes
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.spec import load_spec
from yolo_cli.dataset.splits import load_split
from yolo_cli.drawing.boxes import draw_boxes
from yolo_cli.evaluation.coco_json import coco_ground_truth, coco_predictions
from yolo_cli.evaluation.evaluate import ground_truth
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.evaluation.pycocotools_check import pycocotools_metrics
from yolo_cli.progress import Silent

NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images; the first has a region in its left half, the last one a region and no box."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    rows = ["1 0.75 0.5 0.2 0.3\n-1 0.25 0.5 0.5 1\n", "0 0.5 0.5 0.5 0.5\n", "-1 0.5 0.5 0.25 0.25\n"]
    for i, text in enumerate(rows):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), np.full((100, 200, 3), 60 * i + 40, np.uint8))
        (tmp_path / f"labels/{i}.txt").write_text(text)
    content = {"path": ".", "train": "images", "val": "images", "names": NAMES}
    (tmp_path / "data.yaml").write_text(json.dumps(content))
    return tmp_path


def index_of(folder: Path, cache: Path | None = None) -> LabelIndex:
    images = sorted((folder / "images").glob("*.png"))
    return build_index(images, 3, strict=True, cache_dir=cache, workers=0, progress=None)


def test_regions_are_no_boxes(folder: Path, tmp_path: Path) -> None:
    index = index_of(folder)
    assert index.classes.tolist() == [1, 0]
    assert index.offsets.tolist() == [0, 1, 2, 2]
    assert [index.ignored_rows(i).tolist() for i in range(3)] == [
        [[-1, 0.25, 0.5, 0.5, 1]],
        [],
        [[-1, 0.5, 0.5, 0.25, 0.25]],
    ]
    for _ in range(2):  # written to the cache, then read from it
        cached = index_of(folder, tmp_path / "cache")
        assert cached.ignored_rows(2).tolist() == index.ignored_rows(2).tolist()
        assert cached.fingerprint == index.fingerprint
    merged = merge_indexes([index, index])
    assert merged.ignored_rows(0).tolist() == index.ignored_rows(0).tolist()
    (folder / "labels/2.txt").write_text("")
    assert index_of(folder).fingerprint != index.fingerprint


def test_regions_move_with_the_image(folder: Path) -> None:
    index = index_of(folder)
    plain = Hyperparameters(mosaic=0, hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=1.0)
    loader = train_loader(index, img=(128, 128), batch=3, hyp=plain, seed=0, workers=0)
    (batch,) = list(loader)
    image = batch.indices.index(0)
    rows = batch.targets[batch.targets[:, 0] == image]
    region = rows[rows[:, 1] == -1][0]
    torch.testing.assert_close(region[2:], torch.tensor([0.75, 0.5, 0.5, 0.5]), atol=0.01, rtol=0)  # now on the right
    mosaics = train_loader(index, img=(128, 128), batch=3, hyp=Hyperparameters(), seed=0, workers=0)
    assert any((batch.targets[:, 1] < 0).any() for batch in mosaics)
    (whole,) = list(val_loader(index, img=(128, 128), batch=3))
    assert (whole.targets[:, 1] < 0).sum() == 2


def test_predictions_in_a_region_do_not_count(folder: Path) -> None:
    """A confident false alarm in a region leaves AP as it is, outside of one it does not; equal to pycocotools."""
    index = index_of(folder)

    def evaluated(box: list[float]) -> float:
        evaluator = Evaluator(NAMES)
        truth = [ground_truth(index, i, 3) for i in range(3)]
        found = [
            Detections(torch.tensor([[130.0, 35, 170, 65], box]), torch.tensor([0.5, 0.9]), torch.tensor([1, 1])),
            Detections(torch.tensor([[50.0, 25, 150, 75]]), torch.tensor([0.8]), torch.tensor([0])),
            Detections.empty(),
        ]
        evaluator.update(range(1, 4), [(100, 200)] * 3, [t for t, _ in truth], found, [c for _, c in truth])
        metrics, data = evaluator.compute(), evaluator.state()
        theirs = pycocotools_metrics(coco_ground_truth(data, NAMES), coco_predictions(data))
        assert metrics.map50_95 == pytest.approx(theirs["mAP_0.5:0.95"], abs=1e-6)
        return metrics.map50_95

    assert evaluated([10, 10, 60, 60]) == pytest.approx(1.0)
    assert evaluated([140, 70, 190, 99]) < 0.8


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_converted_datasets_keep_regions(folder: Path, tmp_path: Path, to: str) -> None:
    config = ConvertConfig(str(folder / "data.yaml"), str(tmp_path / "out"), to=to)
    convert_dataset(config, Silent())
    spec = load_spec(str(tmp_path / "out/data.yaml"))
    split = load_split(spec, "val", single_cls=False, strict=True, workers=0, reporter=Silent())
    before, after = index_of(folder), split.index
    assert np.array_equal(before.boxes, after.boxes)
    regions = after.ignored_rows(0)
    assert sorted(regions[:, 0].tolist()) == ([-1] if to == "yolo" else [0, 1, 2])
    assert f"2 boxes, {2 if to == 'yolo' else 6} ignore regions" in split.summary()
    np.testing.assert_allclose(regions[:, 1:], [[0.25, 0.5, 0.5, 1]] * len(regions), atol=1e-6)


def test_a_crowd_of_coco_is_a_region_of_its_class(folder: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "0.png", "height": 100, "width": 200}],
        "categories": [{"id": 5, "name": "c"}, {"id": 3, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 100, 100], "iscrowd": 1, "area": 1},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [100, 0, 50, 50], "iscrowd": 0, "area": 1},
        ],
    }
    (folder / "crowd.json").write_text(json.dumps(document))
    value = {"images": "images", "annotations": "crowd.json"}
    spec = {"path": ".", "train": value, "val": value, "names": NAMES}
    (folder / "crowd.yaml").write_text(json.dumps(spec))
    split = load_split(
        load_spec(str(folder / "crowd.yaml")), "val", single_cls=False, strict=False, workers=0, reporter=Silent()
    )
    assert split.index.classes.tolist() == [0]
    assert split.index.ignored_rows(0).tolist() == [[2, 0.25, 0.5, 0.5, 1]]  # numbered as in data.yaml
    boxes, crowd = ground_truth(split.index, 0, 3)
    assert crowd.tolist() == [False, True]
    assert boxes[1].tolist() == [2, 0, 0, 100, 100]
    assert split.index.single_cls().ignored_rows(0)[0, 0] == 0


def test_regions_are_hatched() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_boxes(image, torch.tensor([[-1.0, 10, 10, 60, 90]]), NAMES)
    inside, outside = drawn[12:88, 12:58], drawn[:, 65:]
    assert 0.05 < (inside > 50).any(axis=2).mean() < 0.6
    assert not outside.any()


def test_regions_of_one_class_lose_it_in_txt_files_but_do_not_multiply(folder: Path, tmp_path: Path) -> None:
    reporter = Recording()
    source = folder
    for number, to in enumerate(("coco", "yolo", "coco", "yolo")):
        target = tmp_path / f"out{number}"
        convert_dataset(ConvertConfig(str(source / "data.yaml"), str(target), to=to), reporter)
        source = target
    rows = sorted((source / "labels/val").rglob("0.txt"))[0].read_text().splitlines()
    assert [row.split()[0] for row in rows] == ["1", "-1"]
    assert sum("6 ignore regions of one class become regions for all classes" in line for line in reporter.lines) == 4


def test_images_with_regions_only_are_not_called_unlabeled(folder: Path) -> None:
    for i in range(3):
        (folder / f"labels/{i}.txt").write_text("-1 0.5 0.5 0.5 0.5\n")
    reporter = Recording()
    spec = load_spec(str(folder / "data.yaml"))
    load_split(spec, "val", single_cls=False, strict=True, workers=0, reporter=reporter)
    assert not any("has a label file" in line for line in reporter.lines)
