"""Suspected label errors: planted ones come first, and predictions are of models that did not see the image."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_checks.conftest import Dataset
from tests.report.evaluations import data_of
from yolo_cli.data_checks.label_errors import MISPLACED, MISSING, SPURIOUS, WRONG_CLASS, find_label_errors
from yolo_cli.data_checks.out_of_fold import choose_runs, combine, trained_images

Box = tuple[float, float, float, float]
GOOD = [(image, image % 2, (20.0, 20.0, 60.0, 60.0), 0.5 + image / 100) for image in range(20)]
AGREEING = [(image, class_id, box) for image, class_id, box, _ in GOOD]


def kinds(truth: list[tuple[int, int, Box]], found: list[tuple[int, int, Box, float]]) -> list[str]:
    return [error.kind for error in find_label_errors(data_of(truth, found, 21))]


def test_labels_that_agree_with_predictions_are_not_suspected() -> None:
    assert kinds(AGREEING, GOOD) == []


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ([], MISSING),
        ([(20, 1, (20.0, 20.0, 60.0, 60.0))], WRONG_CLASS),
        ([(20, 0, (45.0, 20.0, 60.0, 60.0))], MISPLACED),
        ([(20, 0, (35.0, 35.0, 30.0, 30.0))], MISPLACED),
    ],
)
def test_planted_errors(truth: list[tuple[int, int, Box]], kind: str) -> None:
    found = [*GOOD, (20, 0, (20.0, 20.0, 60.0, 60.0), 0.9)]
    data = data_of([*AGREEING, *truth], found, 21)
    (error,) = find_label_errors(data)
    assert error.kind == kind
    assert data.predictions.image[error.prediction] == 20
    assert error.score > 0.9
    unsure = [*GOOD, (20, 0, (20.0, 20.0, 60.0, 60.0), 0.1)]
    assert all(error.kind == SPURIOUS for error in find_label_errors(data_of([*AGREEING, *truth], unsure, 21)))


def test_a_box_on_nothing() -> None:
    assert kinds([*AGREEING, (20, 0, (90.0, 20.0, 60.0, 60.0))], GOOD) == [SPURIOUS]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 60), st.floats(0.01, 1)), max_size=15))
def test_any_predictions_give_a_ranking(rows: list[tuple[int, int, int, float]]) -> None:
    found = [(image, class_id, (float(x), 10.0, 40.0, 40.0), score) for image, class_id, x, score in rows]
    errors = find_label_errors(data_of([(image, class_id, box) for image, class_id, box, _ in found[::2]], found, 4))
    scores = [error.score for error in errors]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    predictions = [error.prediction for error in errors if error.prediction >= 0]
    assert len(predictions) == len(set(predictions))


def test_each_image_gets_a_run_that_did_not_train_on_it() -> None:
    trained = [frozenset(("/a", "/b")), frozenset(("/b", "/c")), None]
    assert choose_runs(["/a", "/b", "/c", "/d"], trained).tolist() == [1, -1, 0, 0]
    first = data_of([], [(0, 0, (1.0, 1.0, 5.0, 5.0), 0.1), (1, 0, (1.0, 1.0, 5.0, 5.0), 0.2)], 2)
    second = data_of([], [(0, 0, (1.0, 1.0, 5.0, 5.0), 0.3), (1, 0, (1.0, 1.0, 5.0, 5.0), 0.4)], 2)
    assert combine([first, second], np.array([1, -1])).predictions.confidence.tolist() == [0.3, 0.2]


def test_the_images_of_a_run(dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    assert trained_images(run / "weights/best.pt") is None
    (run / "opt.yaml").write_text(f"data: {dataset.spec}\n")
    images = trained_images(run / "weights/best.pt")
    assert images is not None
    assert images == {str(file) for file in (dataset.root / "images/train").iterdir()}
    (run / "opt.yaml").write_text("data: gone.yaml\n")
    assert trained_images(run / "weights/best.pt") is None
