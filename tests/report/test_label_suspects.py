"""Suspected label errors and confusions."""

from tests.report.evaluations import data_of
from yolo_cli.report.confusions import find_confusions
from yolo_cli.report.label_suspects import find_suspects
from yolo_cli.report.tide import find_errors

BOX = (10.0, 10.0, 40.0, 40.0)
LARGE = (90.0, 5.0, 90.0, 90.0)
FAR = (150.0, 70.0, 20.0, 20.0)


def test_errors_that_were_put_into_the_labels_are_found() -> None:
    truth = [(0, 0, BOX), (1, 0, LARGE), (1, 1, BOX), (2, 1, BOX)]
    found = [
        (0, 0, BOX, 0.9),
        (0, 1, FAR, 0.95),  # no label
        (1, 1, FAR, 0.0),  # touches LARGE at no more than an IoU of 0.05
        (2, 0, BOX, 0.8),  # labeled 1, predicted 0
        (2, 0, FAR, 0.3),  # not confident
        (0, 0, FAR, 0.6),
    ]
    data = data_of(truth, found, images=3)
    suspects = find_suspects(data, find_errors(data, 2), 0.5)
    confidence, image = data.predictions.confidence, data.predictions.image
    assert confidence[suspects.no_label].tolist() == [0.95, 0.6]
    assert suspects.never_found.tolist() == [1, 2]  # the larger one first
    assert [(int(image[i]), int(j)) for i, j in suspects.other_class] == [(2, 3)]


def test_a_box_that_is_found_with_its_class_is_no_suspect() -> None:
    data = data_of([(0, 0, BOX)], [(0, 0, BOX, 0.9), (0, 1, BOX, 0.8)])
    assert not len(find_suspects(data, find_errors(data, 2), 0.5).other_class)
    data = data_of([(0, 0, BOX)], [(0, 0, BOX, 0.6), (0, 1, BOX, 0.8)])
    assert find_suspects(data, find_errors(data, 2), 0.5).other_class.tolist() == [[1, 0]]


def test_of_two_objects_at_one_place_neither_is_a_suspect() -> None:
    data = data_of([(0, 0, BOX), (0, 1, BOX)], [(0, 0, BOX, 0.9), (0, 1, BOX, 0.8)])
    assert not len(find_suspects(data, find_errors(data, 2), 0.5).other_class)


def test_confusions_by_number_and_confidence() -> None:
    truth = [(i, 0, BOX) for i in range(4)]
    found = [
        (0, 1, BOX, 0.7),
        (1, 1, BOX, 0.9),
        (2, 2, BOX, 0.99),
        (3, 0, BOX, 0.9),
        (3, 1, FAR, 0.9),
        (2, 1, BOX, 0.1),
    ]
    data = data_of(truth, found, images=4)
    confusions = find_confusions(data, 3, 0.5, 20)
    assert [(c.true, c.predicted) for c in confusions] == [(0, 1), (0, 2)]
    assert data.predictions.confidence[confusions[0].pairs[:, 0]].tolist() == [0.9, 0.7]
    assert len(find_confusions(data, 3, 0.5, 1)) == 1
