import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.make import unpack
from metric_cases import Case, from_json, random_case

from yolo_cli.evaluation import evaluator as evaluator_module
from yolo_cli.evaluation.coco_json import coco_ground_truth, coco_predictions
from yolo_cli.evaluation.evaluator import Metrics
from yolo_cli.evaluation.pycocotools_check import coco_precision, pycocotools_metrics


def check_against_pycocotools(case: Case, **options: Any) -> Metrics:
    """Assert that all average precisions and curves equal those of pycocotools, and return our metrics."""
    evaluator = case.evaluator(**options)
    metrics = evaluator.compute()
    truth = coco_ground_truth(evaluator.state(), case.names)
    predictions = coco_predictions(evaluator.state())
    ours, theirs = metrics.to_dict()["metrics"], pycocotools_metrics(truth, predictions)
    assert isinstance(ours, dict)
    for name, value in theirs.items():
        assert ours[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name
    precision = coco_precision(truth, predictions)
    for row, of_class in enumerate(metrics.per_class):
        expected = precision[:, :, of_class.class_id, 0]
        assert of_class.map50 == pytest.approx(expected[0].mean(), abs=1e-9)
        assert of_class.map50_95 == pytest.approx(expected.mean(), abs=1e-9)
        np.testing.assert_allclose(metrics.curves.envelope[row], expected[0], atol=1e-9)
    known = np.flatnonzero((precision[0, :, :, 0] > -1).all(axis=0))
    np.testing.assert_array_equal([c.class_id for c in metrics.per_class], known)
    return metrics


@pytest.mark.parametrize("seed", range(25))
def test_random_boxes(seed: int) -> None:
    check_against_pycocotools(random_case(seed, ties=False))


@pytest.mark.parametrize("seed", range(25))
def test_equal_confidences_and_crowds(seed: int) -> None:
    check_against_pycocotools(random_case(100 + seed, images=12, crowd=0.3))


@pytest.mark.parametrize("seed", range(10))
def test_images_that_are_matched_in_parts_and_out_of_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator_module, "_MATCHED_TOGETHER", 30)
    case = random_case(400 + seed, images=20, crowd=0.2, small_grid=seed % 2 == 0)
    check_against_pycocotools(case, batch=2, order=np.random.default_rng(seed).permutation(20).tolist())


@pytest.mark.parametrize("seed", range(25))
def test_equal_overlaps_and_overlaps_of_exactly_a_threshold(seed: int) -> None:
    check_against_pycocotools(random_case(200 + seed, images=12, classes=2, crowd=0.2, small_grid=True))


@pytest.mark.parametrize("seed", range(4))
def test_more_than_a_hundred_detections_per_image(seed: int) -> None:
    case = random_case(300 + seed, images=3, classes=2, max_ground_truth=60, max_predictions=600)
    assert max(len(d) for d in case.detections) > 250
    check_against_pycocotools(case)


@pytest.mark.parametrize(
    "options",
    [
        {"max_predictions": 0},
        {"max_ground_truth": 0},
        {"max_predictions": 0, "max_ground_truth": 0},
        {"images": 0},
        {"crowd": 1.0},
    ],
    ids=["no detections", "no ground truth", "empty images", "no images", "crowds only"],
)
def test_without_ground_truth_or_detections(options: dict[str, int]) -> None:
    metrics = check_against_pycocotools(random_case(1, **options))  # type: ignore[arg-type]
    assert metrics.fitness == 0
    assert math.isnan(metrics.map50) == (metrics.labels == 0)


def assert_stored_metrics(case: Case, expected: dict[str, Any]) -> None:
    """The stored averages of COCOeval and those of each class equal ours to 1e-6."""
    metrics = case.evaluator(batch=16).compute()
    got = {
        "AP": metrics.map50_95,
        "AP50": metrics.map50,
        "AP75": metrics.map75,
        "AP_small": metrics.map_small,
        "AP_medium": metrics.map_medium,
        "AP_large": metrics.map_large,
    }
    assert got == pytest.approx({name: expected[name] for name in got}, abs=1e-6)
    by_class = {c.name: [c.map50_95, c.map50] for c in metrics.per_class}
    assert by_class.keys() == expected["per_class [AP, AP50]"].keys()
    for name, values in expected["per_class [AP, AP50]"].items():
        assert by_class[name] == pytest.approx(values, abs=1e-6), name


def test_yolov5n_on_48_images_of_coco(reference_file: Callable[[str], Path]) -> None:
    expected = json.loads(reference_file("reference/detections/part.json").read_text())
    stored = np.load(reference_file("reference/detections/part.npz"))
    assert_stored_metrics(from_json(*unpack(dict(stored), expected["names"])), expected)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_yolov5n_on_coco128(reference: Path, split: str) -> None:
    folder = reference / "reference" / "detections"
    truth = json.loads((folder / f"coco128_{split}_gt.json").read_text())
    predictions = json.loads((folder / f"coco128_{split}_yolov5n.json").read_text())
    assert_stored_metrics(from_json(truth, predictions), json.loads((folder / "stats.json").read_text())[split])
