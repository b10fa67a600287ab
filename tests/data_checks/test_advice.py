"""Advice from the sizes of images and boxes."""

import numpy as np
import pytest
import torch

from yolo_cli.data_checks.advice import advise
from yolo_cli.data_checks.findings import CheckedSplit
from yolo_cli.data_checks.training_cost import TrainingCost, measure_training_cost
from yolo_cli.dataset.label_index import LabelIndex

ANCHORS = np.array([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0], [59.0, 119.0], [116.0, 90.0], [373.0, 326.0]])


def split_of(size: tuple[int, int], box: tuple[float, float], images: int = 10) -> CheckedSplit:
    """Images of (height, width) with one box each, whose (width, height) are in pixels."""
    height, width = size
    boxes = np.tile(np.array([0.5, 0.5, box[0] / width, box[1] / height], np.float32), (images, 1))
    index = LabelIndex(b"a" * images, np.arange(images + 1), np.zeros((0, 3), np.int64), np.full((images, 2), size,
                       np.int32), np.zeros(images, np.int32), boxes, np.arange(images + 1), (), "")  # fmt: skip
    return CheckedSplit("train", (), index, images)


def advice(split: CheckedSplit, cost: TrainingCost | None = None) -> dict[str, str]:
    return {finding.code: finding.what for finding in advise(split, (640, 640), ANCHORS, cost)}


def test_large_objects_need_a_small_image() -> None:
    lines = advice(split_of((640, 640), (100, 100)))
    assert lines["img"].startswith("--img 320: 100% of the boxes")
    assert "rect" not in lines
    assert "tile" not in lines


def test_small_objects_in_large_images_need_tiles() -> None:
    lines = advice(split_of((2160, 3840), (20, 20)))
    assert lines["img"].startswith("--img 1536: 100%")
    assert "--tile 640" in lines["tile"]
    assert "6.0 times the resolution" in lines["tile"]
    assert lines["rect"].startswith("--rect saves 44%")


def test_anchors_that_match_no_box() -> None:
    assert "match only 0%" in advice(split_of((640, 640), (600, 8)))["anchors"]
    assert "match 100%" in advice(split_of((640, 640), (30, 30)))["anchors"]


def test_the_cost_of_a_training() -> None:
    cost = TrainingCost("yolox-nano", "this CPU", 0.1, 2**28, 2**20)
    line = advice(split_of((640, 640), (100, 100), images=3000), cost)["cost"]
    assert line == (
        "yolox-nano at 640 on this CPU: about 5 min per epoch, 8.3 h for 100, and 4.0 GiB of memory at --batch 16"
    )


@pytest.mark.slow
def test_memory_grows_with_the_area() -> None:
    small, large = (measure_training_cost(("a", "b"), (side, side), torch.device("cpu")) for side in (64, 128))
    assert 3.5 < large.bytes_per_image / small.bytes_per_image < 4.5
    assert small.seconds_per_image > 0
    assert small.fixed_bytes == large.fixed_bytes
