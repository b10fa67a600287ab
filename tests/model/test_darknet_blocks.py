"""Darknet's layers and head against their definitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.anchors.autoanchor import per_scale
from yolo_cli.config import Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.loss.detection import DetectionLoss, LossWeights
from yolo_cli.model.architecture import from_mapping
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.blocks.darknet import (
    ACTIVATIONS,
    DarknetConv,
    DarknetDropout,
    DarknetMaxPool,
    DarknetOutput,
    DarknetRoute,
    DarknetShortcut,
    darknet_activation,
)
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.darknet_head import DarknetDetect
from yolo_cli.model.plan import Scaling


def pooled_by_definition(x: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """Each output is the maximum of its window; windows start ⌊padding/2⌋ rows above the first row."""
    h, w = ((side + padding - size) // stride + 1 for side in x.shape)
    out = np.full((h, w), -math.inf, dtype=np.float32)
    for i in range(h):
        for j in range(w):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            window = x[max(top, 0) : top + size, max(left, 0) : left + size]
            out[i, j] = window.max()
    return out


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(2, 2, 1), (2, 1, 1), (2, 2, 0), (3, 1, 2), (3, 2, 2), (5, 1, 4), (9, 1, 8), (13, 1, 12), (4, 2, 3), (3, 3, 2)],
)
@pytest.mark.parametrize("side", [12, 24])
def test_pooling_pads_as_darknet_does(size: int, stride: int, padding: int, side: int) -> None:
    x = np.random.default_rng(0).standard_normal((side, side + 6)).astype(np.float32) - 5  # all below zero
    mine = DarknetMaxPool(size, stride, padding)(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(mine, pooled_by_definition(x, size, stride, padding))


def test_odd_sides_are_pooled_as_darknet_does() -> None:
    x = np.random.default_rng(0).standard_normal((7, 9)).astype(np.float32)
    mine = DarknetMaxPool(2, 2, 1)(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(mine, pooled_by_definition(x, 2, 2, 1))


def test_a_route_takes_the_group_of_each_source() -> None:
    a, b = torch.arange(8.0).view(1, 8, 1, 1), torch.arange(100.0, 104).view(1, 4, 1, 1)
    assert DarknetRoute(4, 2)([a, b]).flatten().tolist() == [4, 5, 102]
    assert DarknetRoute()([a, b]).shape == (1, 12, 1, 1)


@pytest.mark.parametrize(("own", "other"), [(4, 4), (4, 2), (2, 4)])
def test_a_shortcut_adds_the_channels_that_both_have(own: int, other: int) -> None:
    x, y = torch.ones(1, own, 2, 2), torch.full((1, other, 2, 2), 10.0)
    total = DarknetShortcut()([x, y])
    assert total.shape == x.shape
    assert total[0, :, 0, 0].tolist() == [11.0] * min(own, other) + [1.0] * (own - min(own, other))
    assert x[0, 0, 0, 0] == 1  # the input is not changed


def test_activations_by_their_formulas() -> None:
    x = torch.linspace(-4, 4, 41)
    s = 1 / (1 + torch.exp(-x))
    expected = {
        "linear": x,
        "leaky": torch.where(x > 0, x, 0.1 * x),
        "relu": x.clamp(min=0),
        "logistic": s,
        "swish": x * s,
        "mish": x * torch.tanh(torch.log(1 + torch.exp(x))),
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, values in expected.items():
        torch.testing.assert_close(darknet_activation(name)(x.clone()), values)


def test_dropout_is_active_in_training_only() -> None:
    layer, x = DarknetDropout(0.5), torch.ones(1, 1, 50, 50)
    assert torch.equal(layer.eval()(x), x)
    assert set(layer.train()(x).unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("norm", [True, False])
def test_a_convolution_keeps_its_output_when_fused(norm: bool) -> None:
    torch.manual_seed(0)
    layer = DarknetConv(8, 12, 3, 2, 1, 4, norm, "mish").train()
    for _ in range(3):
        layer(torch.randn(4, 8, 8, 8))
    layer.eval()
    x = torch.randn(1, 8, 8, 8)
    before = layer(x)
    layer.fuse()
    assert not isinstance(layer.bn, torch.nn.BatchNorm2d)
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-5)


def test_the_bias_starts_from_a_prior_of_few_objects() -> None:
    layer = DarknetOutput(8, 4, 3, 1, 1, 0, 1, False, "linear").eval()
    per_anchor = layer(torch.zeros(1, 8, 2, 2)).view(3, 9, 2, 2).sigmoid()
    assert (per_anchor[:, 4] < 0.05).all()
    assert (per_anchor[:, :4] > 0.3).all()


def head(scale_xy: float = 1.0, new_coords: bool = False) -> DarknetDetect:
    built = DarknetDetect(2, [[32, 64, 16, 16], [8, 8]], [scale_xy, 1.0], [new_coords, False])
    built.place([32, 8])
    return built


@pytest.mark.parametrize(("scale_xy", "new_coords"), [(1.0, False), (1.2, False), (2.0, True)])
def test_boxes_by_the_papers_formulas(scale_xy: float, new_coords: bool) -> None:
    t = np.array([0.3, -0.7, 0.4, -0.2, 1.0, 2.0, -1.0])
    raw = [torch.zeros(1, 2, 3, 4, 7), torch.zeros(1, 1, 12, 16, 7)]
    raw[0][0, 1, 2, 3] = torch.from_numpy(t).float()
    row = head(scale_xy, new_coords).decode(raw)[0, 1 * 12 + 2 * 4 + 3].double().numpy()
    s = 1 / (1 + np.exp(-t))
    center = (scale_xy * s[:2] - (scale_xy - 1) / 2 + [3, 2]) * 32
    size = 16 * ((2 * s[2:4]) ** 2 if new_coords else np.exp(t[2:4]))
    np.testing.assert_allclose(row, [*center, *size, *s[4:]], rtol=1e-5)


def test_large_raw_values_decode_to_finite_boxes() -> None:
    raw = [torch.full((1, 2, 1, 1, 7), 1e4), torch.zeros(1, 1, 4, 4, 7)]
    assert torch.isfinite(head().decode(raw)).all()


def test_the_loss_uses_the_heads_box_coding() -> None:
    """Raw values that decode to the target have a lower box loss than with another head's coding."""
    built = head()
    target = torch.tensor([[0, 1, 0.59, 0.43, 48 / 128, 80 / 96]])  # cell column 2, row 1 of 4×3
    raw = [torch.zeros(1, 2, 3, 4, 7), torch.zeros(1, 1, 12, 16, 7)]
    offset = torch.tensor([0.59 * 4 - 2, 0.43 * 3 - 1])
    raw[0][0, :, 1, 2, :2] = torch.logit(offset)
    raw[0][0, 0, 1, 2, 2:4] = torch.log(torch.tensor([48 / 32, 80 / 64]))
    hyp = Hyperparameters(anchor_t=1.6)  # matches only the first anchor of the first scale
    loss = DetectionLoss.from_head(built, hyp, LossWeights(1.0, 0.0, 0.0))
    decoded = built.decode(raw)[0, 1 * 4 + 2]
    torch.testing.assert_close(decoded[:4], torch.tensor([0.59 * 128, 0.43 * 96, 48, 80]))
    other = DetectionLoss(built.anchors, 2, hyp, LossWeights(1.0, 0.0, 0.0))
    assert loss(raw, target).box < other(raw, target).box
    single = DetectionLoss.from_head(built, hyp, LossWeights(1.0, 0.0, 0.0))
    assert single.boxes is not other.boxes


def test_the_finest_scale_has_the_largest_weight_in_any_order() -> None:
    loss = DetectionLoss.from_head(head(), Hyperparameters(), LossWeights(1.0, 1.0, 1.0))
    assert loss.balance == (1.0, 4.0)  # strides 32, 8


def test_padded_anchors_never_match() -> None:
    built = head()
    assert built.anchors.shape == (2, 2, 2)
    assert built.anchors[1, 1].tolist() == [0.0, 0.0]
    raw = [torch.zeros(1, 2, 3, 4, 7, requires_grad=True), torch.zeros(1, 1, 12, 16, 7, requires_grad=True)]
    targets = torch.tensor([[0, 0, 0.5, 0.5, 8 / 128, 8 / 96], [0, 1, 0.2, 0.2, 0.0, 0.0]])
    parts = DetectionLoss.from_head(built, Hyperparameters(), LossWeights(1.0, 1.0, 1.0))(raw, targets)
    parts.total.backward()
    assert torch.isfinite(parts.total)
    assert all(m.grad is not None and torch.isfinite(m.grad).all() for m in raw)


JUNK = st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=4) | st.floats() | st.just((1, 2))
NAMES = sorted(name for name in BLOCKS if name.startswith("Darknet"))


@given(st.sampled_from(NAMES), st.lists(JUNK, max_size=9), st.integers(1, 3))
def test_invalid_arguments_raise_only_user_errors(name: str, args: list[Any], repeats: int) -> None:
    try:
        BLOCKS[name].plan([8, 8], args, repeats, Scaling())
    except UserError as error:
        assert str(error)
    try:
        BLOCKS[name].plan([8], args, repeats, Scaling())
    except UserError as error:
        assert str(error)


def test_anchors_of_uneven_scales_can_be_replaced() -> None:
    rows = {
        "nc": 2,
        "anchors": [[32, 64, 16, 16], [8, 8]],
        "backbone": [
            [-1, 1, "DarknetConv", [8, 3, 2, 1, 1, True, "relu"]],
            [-1, 1, "DarknetOutput", ["nc", 1, 1, 1, 0, 1, False, "linear"]],
            [0, 1, "DarknetConv", [8, 3, 2, 1, 1, True, "relu"]],
            [-1, 1, "DarknetOutput", ["nc", 2, 1, 1, 0, 1, False, "linear"]],
        ],
        "head": [[[3, 1], 1, "DarknetDetect", ["nc", "anchors", [1.0, 1.0], [False, False]]]],
    }
    model = DetectionModel(from_mapping(rows, name="x", where="x"))
    model.set_anchors(per_scale(np.array([[1.0, 2], [3, 4], [5, 6]]), [2, 1], model.strides))
    assert model.anchors_in_pixels() == [[3, 4, 5, 6], [1, 2]]
    assert model.architecture.anchors == ((3, 4, 5, 6), (1, 2))
