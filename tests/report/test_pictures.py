"""Thumbnails: the right part of the image, boxes at the right place, and the budget."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from tests.report.evaluations import data_of, saved_of
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation
from yolo_cli.report.pictures import Overlay, Picture, around, embed, read_pixels

BOX = (10.0, 10.0, 40.0, 40.0)
LARGE = (1200, 2000)  # height, width


@pytest.fixture
def large(tmp_path: Path) -> SavedEvaluation:
    """A large black image with a white rectangle at x 1200 … 1400, y 300 … 500."""
    saved = saved_of(data_of([(0, 0, BOX)], []), ["a"], tmp_path)
    pixels = np.zeros((*LARGE, 3), np.uint8)
    pixels[300:500, 1200:1400] = 255
    Path(saved.paths[0]).write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    saved.data.sizes[0] = LARGE
    return saved


def decoded(picture: Picture) -> np.ndarray:
    return simplejpeg.decode_jpeg(base64.b64decode(picture.uri.partition(",")[2]))


def test_boxes_are_where_the_objects_are(large: SavedEvaluation) -> None:
    box = Overlay(1200, 300, 200, 200, "truth", "a")
    whole = Picture(0, (0.0, 0.0, 2000.0, 1200.0), 400, "whole", [box])
    part = Picture(0, around([[1200, 300, 200, 200]], LARGE), 120, "part", [box])
    assert read_pixels([whole, part], large) == []
    assert embed([whole, part], 10**6) == 0
    assert (whole.width, whole.height) == (400, 240)
    for picture in (whole, part):
        pixels = decoded(picture)
        assert pixels.shape == (picture.height, picture.width, 3)
        rows, columns = np.nonzero(pixels[..., 0] > 127)
        x, y, width, height = np.fromstring(
            picture.outlines()["truth"].translate(str.maketrans("Mhvz", "    ")), sep=" "
        )[:4]
        assert columns.min() == pytest.approx(x, abs=1)
        assert rows.min() == pytest.approx(y, abs=1)
        assert columns.max() - columns.min() == pytest.approx(width, abs=2)
        assert rows.max() - rows.min() == pytest.approx(height, abs=2)


def test_a_region_stays_inside_of_the_image() -> None:
    for box in ([0, 0, 5, 5], [1995, 1195, 5, 5], [-20, 50, 10, 10], [1999.6, 1199.6, 0.2, 0.2], [0, 0, 2000, 1200]):
        x, y, width, height = around([box], LARGE)
        assert 0 <= x < x + width <= 2000
        assert 0 <= y < y + height <= 1200


def test_pictures_become_smaller_before_they_are_left_out(large: SavedEvaluation) -> None:
    random = np.random.default_rng(0)
    Path(large.paths[0]).write_bytes(cv2.imencode(".png", random.integers(0, 255, (*LARGE, 3), np.uint8))[1].tobytes())

    def sizes(budget: int) -> tuple[int, list[int]]:
        pictures = [Picture(0, (0.0, 0.0, 2000.0, 1200.0), 400, "") for _ in range(4)]
        read_pixels(pictures, large)
        return embed(pictures, budget), [len(picture.uri) for picture in pictures]

    dropped, full = sizes(10**6)
    assert dropped == 0
    dropped, smaller = sizes(sum(full) // 2)
    assert dropped == 0
    assert 0 < sum(smaller) <= sum(full) // 2
    dropped, few = sizes(3000)
    assert 4 > dropped == few.count(0) > 0
    assert sum(few) <= 3000


def test_labels_do_not_cover_each_other() -> None:
    boxes = [Overlay(10 + i, 50, 30, 30, "wrong", f"label {i}") for i in range(5)]
    boxes += [Overlay(180, 0, 19, 19, "missed", "a long label")]
    picture = Picture(0, (0.0, 0.0, 200.0, 100.0), 200, "", boxes)
    labels = picture.labels()
    assert [text for *_, text in labels] == ["label 0", "a long label"]
    _, x, y, _ = labels[1]
    assert 0 < x < 200 - 60
    assert 10 <= y < 100
