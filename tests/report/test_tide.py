"""Error types and what fixing them gains: cases with known answers, properties, and hotcoco."""

import json
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.evaluations import data_of
from yolo_cli.commands.compare import read_with_ground_truth
from yolo_cli.dataset.splits import load_split, prepare_dataset
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.progress import Silent
from yolo_cli.report.tide import (
    BACKGROUND,
    BOTH,
    CLASSIFICATION,
    CORRECT,
    DUPLICATE,
    ERRORS,
    LOCALIZATION,
    NOT_COUNTED,
    average_precision,
    find_errors,
    gains,
)

BOX = (10.0, 10.0, 40.0, 40.0)
HALF = (10.0, 10.0, 40.0, 12.0)  # IoU 0.3 with BOX
FAR = (120.0, 50.0, 20.0, 20.0)


def test_each_type_on_a_case_of_its_own() -> None:
    found = [
        (0, 0, BOX, 0.9),
        (0, 0, BOX, 0.8),
        (0, 1, BOX, 0.7),
        (0, 0, HALF, 0.6),
        (0, 1, HALF, 0.5),
        (0, 0, FAR, 0.4),
    ]
    errors = find_errors(data_of([(0, 0, BOX)], found), 2)
    assert errors.kind.tolist() == [CORRECT, DUPLICATE, CLASSIFICATION, LOCALIZATION, BOTH, BACKGROUND]
    assert errors.target.tolist() == [0, -1, 0, 0, -1, -1]


def test_iou_of_exactly_the_thresholds() -> None:
    tenth, half = (10.0, 10.0, 40.0, 4.0), (10.0, 10.0, 40.0, 20.0)  # IoU 0.1 and 0.5
    errors = find_errors(data_of([(0, 0, BOX)], [(0, 0, tenth, 0.9), (0, 0, half, 0.8), (0, 1, tenth, 0.7)]), 2)
    assert errors.kind.tolist() == [LOCALIZATION, CORRECT, BOTH]


def test_a_box_is_missed_where_no_other_error_belongs_to_it() -> None:
    truth = [(0, 0, BOX), (0, 0, FAR), (1, 1, BOX), (2, 1, BOX)]
    data = data_of(truth, [(0, 0, BOX, 0.9), (1, 0, BOX, 0.9), (2, 1, HALF, 0.2)], images=3)
    errors = find_errors(data, 2)
    everything = np.ones(3, dtype=bool)
    assert errors.missed(data, everything).tolist() == [False, True, False, False]
    assert errors.missed(data, data.predictions.confidence > 0.5).tolist() == [False, True, False, True]
    assert errors.found(4, everything).tolist() == [True, False, False, False]


def test_crowd_regions_are_neither_missed_nor_errors() -> None:
    data = data_of([(0, 0, BOX)], [(0, 0, HALF, 0.9), (0, 1, BOX, 0.8)], crowd=[True])
    errors = find_errors(data, 2)
    assert errors.kind.tolist() == [NOT_COUNTED, BACKGROUND]
    assert not errors.missed(data, np.ones(2, dtype=bool)).any()
    assert set(gains(data, errors, 2).values()) == {0.0}


def test_gains_that_can_be_computed_by_hand() -> None:
    # One of two boxes is found; the other has the wrong class: AP is 51/101, and 1 with the class fixed.
    data = data_of([(0, 0, BOX), (1, 0, BOX)], [(0, 0, BOX, 0.9), (1, 1, BOX, 0.8)], images=2)
    result = gains(data, find_errors(data, 2), 2)
    assert result == pytest.approx({**dict.fromkeys(ERRORS, 0.0), "classification": 50 / 101})
    # A more confident background detection halves precision.
    data = data_of([(0, 0, BOX)], [(0, 0, FAR, 0.9), (0, 0, BOX, 0.8)])
    assert gains(data, find_errors(data, 1), 1) == pytest.approx({**dict.fromkeys(ERRORS, 0.0), "background": 0.5})
    # Two loose predictions of a box: one is moved, the other one is removed.
    data = data_of([(0, 0, BOX)], [(0, 0, HALF, 0.9), (0, 0, HALF, 0.8)])
    assert gains(data, find_errors(data, 1), 1) == pytest.approx({**dict.fromkeys(ERRORS, 0.0), "localization": 1.0})
    # Of two boxes one is missed.
    data = data_of([(0, 0, BOX), (0, 0, FAR)], [(0, 0, BOX, 0.9)])
    assert gains(data, find_errors(data, 1), 1)["missed"] == pytest.approx(50 / 101)


@st.composite
def evaluations(draw: st.DrawFn) -> EvalData:
    """Few places and sizes, so that boxes often overlap and confidences are often equal."""
    side = st.sampled_from([10.0, 14.0, 20.0, 30.0])
    box = st.tuples(st.sampled_from([0.0, 5.0, 9.0, 40.0]), st.sampled_from([0.0, 5.0, 9.0, 40.0]), side, side)
    image, class_id = st.integers(0, 2), st.integers(0, 2)
    truth = draw(st.lists(st.tuples(image, class_id, box), max_size=12))
    confidence = st.sampled_from([0.1, 0.3, 0.5, 0.9])
    found = draw(st.lists(st.tuples(image, class_id, box, confidence), max_size=25))
    return data_of(truth, found, images=3)


@given(evaluations())
def test_fixing_an_error_never_lowers_ap(data: EvalData) -> None:
    errors = find_errors(data, 3)
    assert (errors.kind[errors.target >= 0] <= LOCALIZATION).all()
    for name, gain in gains(data, errors, 3).items():
        assert -1e-12 <= gain <= 1 + 1e-12, name


@given(evaluations())
def test_average_precision_is_the_evaluators(data: EvalData) -> None:
    evaluator = Evaluator(("a", "b", "c"))
    evaluator.merge(data)
    errors = find_errors(data, 3)
    pred = data.predictions
    boxes = np.bincount(data.ground_truth.class_id, minlength=3)
    ap = average_precision(pred.class_id, pred.confidence, errors.kind == CORRECT, boxes)
    assert ap[~np.isnan(ap)].tolist() == pytest.approx([row.map50 for row in evaluator.compute().per_class])


def test_real_detections_against_hotcoco(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Types, and the gains of removing errors, are equal. What is fixed is chosen a little differently."""
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    detections = reference / "reference/detections/coco128_val2017_yolov5n.json"
    spec = prepare_dataset("coco128", Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=0, reporter=Silent())
    data = read_with_ground_truth(detections, split, spec.nc)
    errors = find_errors(data, spec.nc)
    ours = gains(data, errors, spec.nc)

    truth = hotcoco.COCO(str(reference / "reference/detections/coco128_val2017_gt.json"))
    evaluation = hotcoco.COCOeval(truth, truth.load_res(str(detections)), "bbox")
    evaluation.params.max_dets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    theirs = evaluation.tide_errors()
    short = dict(zip(ERRORS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
    everything = np.ones(len(errors.kind), dtype=bool)
    counts = {name: int((errors.kind == i).sum()) for i, name in enumerate(ERRORS)}
    counts["missed"] = int(errors.missed(data, everything).sum())
    assert counts == {name: theirs["counts"][key] for name, key in short.items()}
    assert len(json.loads(detections.read_text())) == len(errors.kind)
    for name, key in short.items():
        tolerance = 1e-3 if name in ("classification", "localization") else 1e-9
        assert ours[name] == pytest.approx(theirs["delta_ap"][key], abs=tolerance), name
