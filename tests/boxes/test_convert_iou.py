import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.boxes.convert import cxcywh_to_xyxy, xyxy_to_cxcywh
from yolo_cli.boxes.iou import complete_iou, pairwise_iou

coordinate = st.floats(-1000, 1000, width=32)
side = st.floats(0.5, 500, width=32)
boxes = st.lists(st.tuples(coordinate, coordinate, side, side), min_size=1, max_size=8).map(torch.tensor)


@pytest.fixture(scope="module")
def ops() -> Any:
    return importlib.import_module("torchvision.ops")


@given(boxes)
def test_cxcywh_to_xyxy_and_back_is_the_identity(cxcywh: torch.Tensor) -> None:
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(cxcywh.double())), cxcywh.double())


@given(a=boxes, b=boxes)
def test_pairwise_iou_equals_torchvision(ops: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    a, b = cxcywh_to_xyxy(a.double()), cxcywh_to_xyxy(b.double())
    torch.testing.assert_close(pairwise_iou(a, b), ops.box_iou(a, b), atol=1e-9, rtol=0)


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert pairwise_iou(point, point).item() == 0.0


@given(cxcywh=boxes)
def test_complete_iou_equals_torchvision(ops: Any, cxcywh: torch.Tensor) -> None:
    a = cxcywh.double()
    b = a.flip(0) * 1.1 + 3
    expected = 1 - ops.complete_box_iou_loss(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))
    torch.testing.assert_close(complete_iou(a, b), expected, atol=1e-6, rtol=0)


def test_complete_iou_gradient_matches_torchvision(ops: Any) -> None:
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.uniform(5, 30, (20, 4))).requires_grad_()
    b = torch.from_numpy(rng.uniform(5, 30, (20, 4)))
    complete_iou(a, b).sum().backward()
    mine = a.grad
    a.grad = None
    (-ops.complete_box_iou_loss(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))).sum().backward()
    assert mine is not None
    torch.testing.assert_close(mine, a.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("same", [(5.0, 5.0, 2.0, 3.0), (0.0, 0.0, 100.0, 1.0)])
def test_complete_iou_of_a_box_with_itself_is_one(same: tuple[float, ...]) -> None:
    box = torch.tensor([same])
    assert math.isclose(complete_iou(box, box).item(), 1.0, abs_tol=1e-6)
