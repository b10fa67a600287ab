"""Confidence thresholds: chosen as their definition says, and with honest statements about other images."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from metric_cases import Case, boxes, detections, random_case
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_cli.commands.compare import read_with_ground_truth
from yolo_cli.dataset.splits import load_split, prepare_dataset
from yolo_cli.evaluation import operating_data
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.operating_data import GRID, OperatingCollector, OperatingData
from yolo_cli.evaluation.operating_points import (
    MIN_BOXES,
    Criterion,
    choose_thresholds,
    rates_at,
)
from yolo_cli.progress import Silent
from yolo_cli.run.threshold_report import threshold_lines

F1 = Criterion()


def case(images: int, rows: list[tuple[bool, float]], missed: int = 0) -> EvalData:
    """Detections (correct, confidence) of one class, spread over images, and `missed` boxes without detections."""
    places: list[tuple[list, list]] = [([], []) for _ in range(images)]
    for i, (correct, confidence) in enumerate(rows):
        x = 20.0 * (i // images)
        found, truth = places[i % images]
        found.append((x, 0.0, x + 10, 10.0, confidence, 0))
        if correct:
            truth.append((0, x, 0.0, x + 10, 10.0))
    for i in range(missed):
        places[i % images][1].append((0, 20.0 * (i // images), 100.0, 20.0 * (i // images) + 10, 110.0))
    return (
        Case(
            ["thing"],
            list(range(1, images + 1)),
            [(200, 2000)] * images,
            [boxes(*truth) for _, truth in places],
            [detections(*found) for found, _ in places],
            [boxes(*truth)[:, 0] < 0 for _, truth in places],
        )
        .evaluator()
        .state()
    )


def counts_by_definition(data: EvalData, threshold: float) -> tuple[int, int, int]:
    """Predictions, correct ones and boxes of the only class, as pycocotools matches them."""
    kept = data.predictions.confidence > threshold
    images = [{"id": int(i), "height": 200, "width": 2000} for i in data.image_ids]
    gt, pred = data.ground_truth, data.predictions
    annotations = [
        {"id": n, "image_id": int(data.image_ids[i]), "category_id": 0, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for n, (i, b) in enumerate(zip(gt.image, gt.xywh.tolist(), strict=True), start=1)
    ]
    results = [
        {"image_id": int(data.image_ids[i]), "category_id": 0, "bbox": b, "score": float(s)}
        for i, b, s in zip(pred.image[kept], pred.xywh[kept].tolist(), pred.confidence[kept], strict=True)
    ]
    truth, found = COCO(), COCO()
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "thing"}]}
    for number, result in enumerate(results, start=1):
        result |= {"id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
    found.dataset = truth.dataset | {"annotations": results}
    for coco in (truth, found):
        coco.createIndex()
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    right = sum(
        int((one["dtMatches"][0] > 0).sum())
        for one in evaluation.evalImgs
        if one is not None and one["aRng"] == evaluation.params.areaRng[0]
    )
    return int(kept.sum()), right, len(annotations)


def test_threshold_has_the_best_f1_of_all_that_pycocotools_counts() -> None:
    random = np.random.default_rng(0)
    rows = [(bool(random.random() < c), round(float(c), 3)) for c in random.uniform(0.02, 0.99, 150)]
    data = case(10, rows, missed=30)
    one = choose_thresholds(OperatingData.of(data, 1), ["thing"], F1).per_class[0]

    def f1(threshold: float) -> float:
        found, right, total = counts_by_definition(data, threshold)
        return 2 * right / (found + total)

    assert one.is_own
    assert one.f == pytest.approx(f1(one.threshold))
    assert one.f >= max(f1(threshold) for threshold in GRID[::4].tolist())
    assert one.low <= one.threshold <= one.high


@pytest.mark.parametrize(("beta", "lower"), [(0.5, False), (2.0, True)])
def test_beta_moves_the_threshold_toward_recall(beta: float, lower: bool) -> None:
    random = np.random.default_rng(1)
    rows = [(bool(random.random() < c), float(c)) for c in random.uniform(0.02, 0.99, 300)]
    data = OperatingData.of(case(10, rows), 1)
    base, other = (choose_thresholds(data, ["thing"], Criterion(b)).per_class[0] for b in (1.0, beta))
    assert (other.threshold < base.threshold) is lower
    assert other.threshold != base.threshold
    p, r = other.precision, other.recall
    assert other.f == pytest.approx((1 + beta**2) * p * r / (beta**2 * p + r))


def test_min_precision_takes_the_highest_recall_that_has_it() -> None:
    # 40 right above 0.5, then one wrong for each right one.
    rows = [(True, 0.9)] * 40 + [(i % 2 == 0, 0.4 - i / 1000) for i in range(40)]
    data = OperatingData.of(case(8, rows), 1)
    choice = choose_thresholds(data, ["thing"], Criterion(min_precision=0.9))
    one = choice.per_class[0]
    assert one.precision >= 0.9
    assert one.is_reached
    lower = rates_at(data, [one.threshold - 0.005], F1)
    assert lower.precision < 0.9
    assert choice.criterion == "precision at least 0.9"


def test_a_precision_that_no_threshold_has_is_said() -> None:
    data = OperatingData.of(case(8, [(i % 2 == 0, 0.5) for i in range(80)]), 1)
    choice = choose_thresholds(data, ["thing"], Criterion(min_precision=0.95))
    assert not choice.per_class[0].is_reached
    assert choice.per_class[0].precision == pytest.approx(0.5)
    assert any("precision not reached" in line for line in threshold_lines(choice, beta=1, verbose=True))


@pytest.mark.parametrize(("boxes_of_class", "own"), [(MIN_BOXES - 1, False), (MIN_BOXES, True)])
def test_a_class_with_few_boxes_takes_the_overall_threshold(boxes_of_class: int, own: bool) -> None:
    few = case(10, [(True, 0.9)] * boxes_of_class + [(False, 0.8)] * 30)
    one = choose_thresholds(OperatingData.of(few, 1), ["thing"], F1)
    assert one.per_class[0].is_own is own
    assert math.isnan(one.per_class[0].low) is not own
    said = any(f"fewer than {MIN_BOXES} boxes" in line for line in threshold_lines(one, beta=1, verbose=False))
    assert said is not own


def test_classes_without_boxes_get_the_overall_threshold_in_the_saved_ones() -> None:
    data = random_case(3, images=12, classes=4, ties=False).evaluator().state()
    gt = data.ground_truth
    kept = gt.class_id != 2
    data = replace(
        data,
        ground_truth=replace(
            gt, image=gt.image[kept], class_id=gt.class_id[kept], xywh=gt.xywh[kept], crowd=gt.crowd[kept]
        ),
    )
    choice = choose_thresholds(OperatingData.of(data, 4), ["a", "b", "c", "d"], F1)
    assert 2 not in [one.class_id for one in choice.per_class]
    assert len(choice.per_class) >= 2
    assert choice.saved(4, "here").per_class[2] == choice.overall


def test_without_boxes_the_threshold_is_the_default() -> None:
    data = case(3, [(False, 0.5)] * 3)
    choice = choose_thresholds(OperatingData.of(data, 1), ["thing"], F1)
    assert choice.overall == 0.25
    assert choice.expected == {}
    assert json.loads(json.dumps(choice.to_dict()))["low"] is None
    assert "no labels" in next(iter(threshold_lines(choice, beta=1, verbose=False)))


def test_cross_validated_rates_are_those_of_thresholds_chosen_on_other_images() -> None:
    """Confidences that mean nothing: chosen thresholds look better on their own images than on others."""
    random = np.random.default_rng(5)
    seen, expected = [], []
    for _ in range(20):
        rows = [(bool(random.random() < 0.5), float(c)) for c in random.uniform(0.02, 0.99, 60)]
        data = OperatingData.of(case(12, rows, missed=10), 1)
        choice = choose_thresholds(data, ["thing"], F1)
        seen.append(choice.per_class[0].f)
        expected.append(choice.expected["per class"].f)
    assert np.mean(expected) < np.mean(seen)


def test_thresholds_chosen_on_one_split_help_on_another(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """yolov5n, chosen on the train images of coco128, applied to the val images: a higher mean F1 than at 0.25."""
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    spec = prepare_dataset("coco128", Silent())
    data = {}
    for task in ("train", "val"):
        split = load_split(spec, task, single_cls=False, strict=False, workers=0, reporter=Silent())
        path = reference / f"reference/detections/coco128_{task}2017_yolov5n.json"
        data[task] = OperatingData.of(read_with_ground_truth(path, split, 80), 80)
    choice = choose_thresholds(data["train"], spec.names, F1)
    saved = choice.saved(80, "train")
    here = rates_at(data["val"], saved.per_class, F1)
    default = rates_at(data["val"], [0.25] * 80, F1)
    assert here.f > default.f + 0.005
    assert {one.name for one in choice.per_class if one.is_own} == {"person", "car", "chair", "cup"}
    # What was expected of other images is close to what other images give.
    assert choice.expected["per class"].f == pytest.approx(here.f, abs=0.03)


def test_images_collected_in_any_order_give_the_same_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random_case(3, images=40, crowd=0.2)
    whole = OperatingData.of(drawn.evaluator().state(), 4)
    monkeypatch.setattr(operating_data, "_MATCHED_TOGETHER", 30)
    collector = OperatingCollector(drawn.names)
    for i in np.random.default_rng(0).permutation(40).tolist():
        each = (drawn.ids, drawn.sizes, drawn.ground_truth, drawn.detections, drawn.crowd)
        collector.update(*([column[i]] for column in each))
    weights = np.random.default_rng(1).integers(0, 3, 40)
    found = collector.data()
    for got, expected in ((found.counts(), whole.counts()), (found.counts(weights), whole.counts(weights))):
        np.testing.assert_array_equal(got.predicted, expected.predicted)
        np.testing.assert_array_equal(got.correct, expected.correct)
        np.testing.assert_array_equal(got.labels, expected.labels)
    assert choose_thresholds(found, drawn.names, F1) == choose_thresholds(whole, drawn.names, F1)
