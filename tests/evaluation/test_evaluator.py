import math
import pickle

import numpy as np
import pytest
import torch
from metric_cases import Case, boxes, detections, random_case

from yolo_cli.batch import Detections
from yolo_cli.evaluation import evaluator as evaluator_module
from yolo_cli.evaluation import matching
from yolo_cli.evaluation.evaluator import Evaluator, Metrics


def one_image(truth: torch.Tensor, found: Detections, classes: int = 2, crowd: list[bool] | None = None) -> Metrics:
    flags = torch.tensor(crowd if crowd is not None else [False] * len(truth), dtype=torch.bool)
    return Case([f"c{i}" for i in range(classes)], [7], [(480, 640)], [truth], [found], [flags]).evaluator().compute()


def oracle(case: Case, class_id: int, threshold: float) -> tuple[int, int, int]:
    """True positives, counted detections and labels of one class, computed box by box from COCO's rules."""
    right = counted = labels = 0
    for truth, found, crowd in zip(case.ground_truth, case.detections, case.crowd, strict=True):
        mine = [(t[1:].double().tolist(), bool(c)) for t, c in zip(truth, crowd, strict=True) if t[0] == class_id]
        labels += sum(not c for _, c in mine)
        rows = [
            (float(c), b.double().tolist())
            for b, c, k in zip(found.xyxy, found.confidence, found.class_id, strict=True)
            if k == class_id
        ]
        taken: set[int] = set()
        for score, box in sorted(rows, key=lambda row: -row[0]):
            best, best_iou = -1, 0.5
            for i, (other, is_crowd) in enumerate(mine):
                if not is_crowd and i not in taken and overlap(box, other) >= best_iou:
                    best, best_iou = i, overlap(box, other)
            in_crowd = any(c and overlap(box, other, crowd=True) >= 0.5 for other, c in mine)
            taken.add(best)
            if score >= threshold and (best >= 0 or not in_crowd):
                counted += 1
                right += best >= 0
    return right, counted, labels


def overlap(a: list[float], b: list[float], crowd: bool = False) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area, other = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area if crowd else area + other - shared)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("small_grid", [False, True])
def test_curves_are_exact_counts(seed: int, small_grid: bool) -> None:
    case = random_case(seed, images=5, crowd=0.2, small_grid=small_grid)
    curves = case.evaluator().compute().curves
    for row, class_id in enumerate(curves.class_ids):
        for at in (0, 250, 499, 714, 999):
            right, counted, labels = oracle(case, class_id, curves.confidence[at])
            assert curves.recall[row, at] == pytest.approx(right / labels)
            assert curves.f1[row, at] == pytest.approx(2 * right / (counted + labels))
            expected = right / counted if counted else math.nan
            assert curves.precision[row, at] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("first", "second", "precision"), [(0, 4, 0.5), (4, 0, 1)])
def test_of_equal_overlaps_the_last_ground_truth_is_matched(first: int, second: int, precision: float) -> None:
    found = detections((2, 0, 12, 10, 0.9, 0), (5, 0, 15, 10, 0.8, 0))  # the second overlaps only the ground truth at 4
    truth = boxes((0, first, 0, first + 10, 10), (0, second, 0, second + 10, 10))
    assert one_image(truth, found).curves.precision[0, 0] == precision


def test_the_operating_point_is_where_mean_f1_is_highest() -> None:
    found = detections((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.6, 0), (20, 20, 30, 30, 0.8, 1), (0, 0, 5, 5, 0.1, 1))
    metrics = one_image(boxes((0, 0, 0, 10, 10), (1, 20, 20, 30, 30), (1, 70, 70, 90, 90)), found)
    assert metrics.best_confidence == pytest.approx(0.6, abs=0.002)
    assert metrics.best_confidence > 0.6
    assert (metrics.precision, metrics.recall) == (1, 0.75)
    assert metrics.f1 == pytest.approx((1 + 2 / 3) / 2)
    assert [(c.precision, c.recall, c.images, c.labels) for c in metrics.per_class] == [(1, 1, 1, 1), (1, 0.5, 1, 2)]


def test_a_class_without_detections_has_precision_zero() -> None:
    metrics = one_image(boxes((0, 0, 0, 10, 10), (1, 20, 20, 30, 30)), detections((0, 0, 10, 10, 0.9, 0)))
    assert (metrics.precision, metrics.recall, metrics.map50) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(metrics.curves.precision[1]).all()


def test_average_precision_by_size() -> None:
    found = detections((0, 0, 20, 20, 0.9, 0), (100, 100, 300, 300, 0.8, 0))
    metrics = one_image(boxes((0, 0, 0, 20, 20), (0, 100, 100, 300, 200)), found)
    assert metrics.map_small == pytest.approx(1)
    assert metrics.map_large == pytest.approx(0.1)  # IoU is 0.5, the lowest of ten thresholds
    assert math.isnan(metrics.map_medium)


@pytest.mark.parametrize("seed", range(5))
def test_batch_size_and_order_of_images_have_no_effect(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed, images=15)
    whole = case.evaluator().compute()
    order = np.random.default_rng(seed).permutation(15).tolist()
    others = [case.evaluator(batch=1), case.evaluator(batch=4, order=order)]
    monkeypatch.setattr(evaluator_module, "_MATCHED_TOGETHER", 1)
    others += [case.evaluator(batch=1, order=order), case.evaluator(batch=3)]
    for other in others:
        got = other.compute()
        np.testing.assert_array_equal(got.curves.precision, whole.curves.precision)
        assert got.to_dict() == whole.to_dict()
        np.testing.assert_array_equal(got.confusion, whole.confusion)
        np.testing.assert_array_equal(got.curves.envelope, whole.curves.envelope)


def test_matching_in_blocks_gives_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(4, images=8, max_ground_truth=20, max_predictions=60)
    whole = case.evaluator().compute()
    monkeypatch.setattr(matching, "_PAIRS_PER_BLOCK", 7)
    in_blocks = case.evaluator().compute()
    np.testing.assert_array_equal(in_blocks.curves.f1, whole.curves.f1)
    np.testing.assert_array_equal(in_blocks.confusion, whole.confusion)


def test_merged_evaluators_equal_one_evaluator() -> None:
    case = random_case(3, images=9)
    first, second = case.evaluator(order=[8, 0, 3]), case.evaluator(order=[1, 2, 4, 5, 6, 7])
    first.merge(pickle.loads(pickle.dumps(second.state())))
    assert first.compute().to_dict() == case.evaluator().compute().to_dict()


def test_shards_of_several_ranks_equal_one_evaluator() -> None:
    case = random_case(3, images=9)
    ranks = [case.evaluator(order=[8, 0, 3]), case.evaluator(order=[]), case.evaluator(order=[1, 2, 4, 5, 6, 7])]
    shards = [pickle.loads(pickle.dumps(rank.shard())) for rank in ranks]
    together = Evaluator(case.names)
    for shard in shards:
        together.merge_shard(shard)
    metrics, expected = together.compute(), case.evaluator().compute()
    assert metrics.to_dict() == expected.to_dict()
    np.testing.assert_array_equal(metrics.curves.f1, expected.curves.f1)
    np.testing.assert_array_equal(together.state().predictions.xywh, case.evaluator().state().predictions.xywh)


def test_metrics_do_not_need_the_boxes() -> None:
    case = random_case(3, images=9)
    few = Evaluator(case.names, boxes_kept=5)
    few.merge(case.evaluator().state())
    assert not few.has_boxes
    assert few.compute().to_dict() == case.evaluator().compute().to_dict()
    with pytest.raises(ValueError, match="only 5 predictions are kept"):
        few.state()


def test_confidences_of_float64_are_ranked_exactly() -> None:
    rows = [[0, 0, 10, 10], [20, 0, 30, 10]]
    near = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)  # equal in float32
    found = Detections(torch.tensor(rows, dtype=torch.float64), near, torch.zeros(2, dtype=torch.int64))
    assert one_image(boxes((0, 20, 0, 30, 10)), found).map50 == pytest.approx(1)


def test_reset_removes_all_images() -> None:
    evaluator = random_case(3).evaluator()
    evaluator.reset()
    assert (evaluator.compute().images, evaluator.compute().labels) == (0, 0)


def test_confusion_has_predicted_classes_in_rows_and_true_ones_in_columns() -> None:
    truth = boxes((0, 0, 0, 10, 10), (0, 100, 0, 110, 10), (1, 200, 0, 210, 10), (2, 300, 0, 310, 10))
    found = detections(
        (0, 0, 10, 10, 0.9, 0),  # correct
        (100, 0, 110, 10, 0.9, 1),  # predicted 1, true 0
        (200, 0, 210, 10, 0.8, 1),  # correct
        (200, 0, 210, 10, 0.7, 2),  # duplicate: background
        (400, 0, 410, 10, 0.6, 2),  # background
        (300, 0, 310, 10, 0.2, 2),  # below the confidence threshold: missed
    )
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0]]
    np.testing.assert_array_equal(one_image(truth, found, classes=3).confusion, expected)


def test_confusion_prefers_ground_truth_of_the_same_class() -> None:
    truth = boxes((0, 0, 0, 10, 10), (1, 0, 0, 10, 10))
    for first, second in ((0, 1), (1, 0)):
        found = detections((0, 0, 10, 10, 0.9, first), (0, 0, 10, 10, 0.8, second))
        np.testing.assert_array_equal(one_image(truth, found).confusion, np.diag([1, 1, 0]))


def test_confusion_leaves_out_predictions_in_a_crowd_of_their_class() -> None:
    found = detections((10, 10, 20, 20, 0.9, 0), (40, 40, 50, 50, 0.9, 0), (40, 60, 50, 70, 0.9, 1))
    matrix = one_image(boxes((0, 0, 0, 100, 100)), found, crowd=[True]).confusion
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_boxes_that_are_not_finite_are_false_positives() -> None:
    nan, inf = math.nan, math.inf
    found = detections((nan, 0, 10, 10, 0.9, 0), (-inf, 0, inf, 10, 0.9, 0), (0, 0, 10, 10, nan, 0))
    assert one_image(boxes((0, 20, 20, 30, 30)), found).map50 == 0


def test_invalid_arguments_are_refused() -> None:
    case = random_case(2)
    twice = case.evaluator()
    twice.merge(case.evaluator(order=[1]).state())
    with pytest.raises(ValueError, match=f"image {case.ids[1]} .* twice"):
        twice.compute()
    evaluator = Evaluator(["one"])
    with pytest.raises(ValueError, match="there are 1 names"):
        evaluator.update([1], [(9, 9)], [boxes((1, 0, 0, 1, 1))], [Detections.empty()])
    with pytest.raises(ValueError, match="differ in number"):
        evaluator.update([1, 2], [(9, 9)], [boxes()], [Detections.empty()])
    with pytest.raises(ValueError, match="2 crowd flags for 1 ground truth boxes"):
        evaluator.update([1], [(9, 9)], [boxes((0, 0, 0, 1, 1))], [Detections.empty()], [torch.ones(2).bool()])


def test_unknown_metrics_are_null_in_results_json() -> None:
    result = one_image(boxes((0, 0, 0, 20, 20)), detections((0, 0, 20, 20, 0.9, 0))).to_dict()
    assert result["metrics"] == {
        "precision": 1.0,
        "recall": 1.0,
        "F1": 1.0,
        "mAP_0.5": pytest.approx(1),
        "mAP_0.75": pytest.approx(1),
        "mAP_0.5:0.95": pytest.approx(1),
        "mAP_small": pytest.approx(1),
        "mAP_medium": None,
        "mAP_large": None,
    }
