"""Standard errors of precision, recall and F1 against resampled datasets."""

import math

import numpy as np

from tests.report.evaluations import data_of
from yolo_cli.report.threshold_scores import threshold_errors
from yolo_cli.report.tide import find_errors

BOX, FAR = (10.0, 10.0, 40.0, 40.0), (100.0, 60.0, 30.0, 30.0)


def test_the_error_of_one_class_is_that_of_a_proportion() -> None:
    """With one box and one prediction per image, recall and precision are means of independent cases."""
    truth = [(i, 0, BOX) for i in range(200)]
    found = [(i, 0, BOX if i % 4 else FAR, 0.9) for i in range(200)]
    data = data_of(truth, found, 200)
    errors = threshold_errors(data, find_errors(data, 1), 0.5, 1, resamples=2000)
    expected = math.sqrt(0.75 * 0.25 / 200)
    for value in (errors.precision, errors.recall, errors.f1):
        assert 0.9 * expected < value < 1.1 * expected


def test_predictions_below_the_threshold_do_not_count() -> None:
    data = data_of([(i, 0, BOX) for i in range(20)], [(i, 0, BOX, 0.1) for i in range(20)], 20)
    errors = threshold_errors(data, find_errors(data, 1), 0.5, 1, resamples=100)
    assert (errors.precision, errors.recall, errors.f1) == (0.0, 0.0, 0.0)


def test_one_image_has_no_error() -> None:
    data = data_of([(0, 0, BOX)], [(0, 0, BOX, 0.9)], 1)
    assert np.isnan(threshold_errors(data, find_errors(data, 1), 0.5, 1, resamples=100).f1)
