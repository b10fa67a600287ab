import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolo_cli.config import Hyperparameters
from yolo_cli.loss.assign import assign
from yolo_cli.loss.detection import DetectionLoss, LossWeights, scale_balance, scaled_loss_weights

CASES = ("default", "label_smoothing", "focal", "no_targets", "class_weight")
SIZE = 320


@pytest.fixture(scope="module")
def published(reference_file: Callable[[str], Path]) -> tuple[dict[str, Any], Any]:
    cases = json.loads(reference_file("reference/loss/cases.json").read_text())
    return cases, np.load(reference_file("reference/loss/default.npz"))


def reference_maps() -> list[torch.Tensor]:
    rng = np.random.default_rng(7)
    return [
        torch.from_numpy(rng.standard_normal((8, 3, SIZE // s, SIZE // s, 85)).astype(np.float32)).requires_grad_()
        for s in (8, 16, 32)
    ]


def reference_anchors(cases: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(cases["anchors"]).float().view(3, 3, 2) / torch.tensor([8.0, 16, 32]).view(3, 1, 1)


@pytest.mark.parametrize("name", CASES)
def test_totals_parts_and_gradients_equal_the_published_loss(published: tuple[dict[str, Any], Any], name: str) -> None:
    cases, arrays = published
    case = cases["cases"][name]
    options = dict(case["hyp"])
    smoothing = options.pop("label_smoothing")
    hyp = Hyperparameters(**options)
    loss = DetectionLoss(reference_anchors(cases), 80, hyp, LossWeights(hyp.box, hyp.obj, hyp.cls), smoothing)
    maps = reference_maps()
    parts = loss(maps, torch.from_numpy(arrays["targets"][: case["targets"]]))
    parts.total.backward()
    assert parts.total.item() == pytest.approx(case["total"], rel=1e-4)
    for mine, theirs in ((parts.box, "lbox"), (parts.obj, "lobj"), (parts.cls, "lcls")):
        assert mine.item() == pytest.approx(case[theirs], rel=1e-4, abs=1e-6)
    norms = [m.grad.norm().item() for m in maps if m.grad is not None]
    np.testing.assert_allclose(norms, case["grad_norm"], rtol=1e-4)
    if name == "default":
        for scale, m in enumerate(maps):
            assert m.grad is not None
            np.testing.assert_allclose(m.grad[0].numpy(), arrays[f"grad{scale}"], atol=1e-7)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_assignments_equal_the_published_ones(published: tuple[dict[str, Any], Any], scale: int) -> None:
    cases, arrays = published
    side = SIZE // (8 << scale)
    m = assign(torch.from_numpy(arrays["targets"]), reference_anchors(cases)[scale], (side, side), anchor_t=4.0)
    integers = torch.stack((m.image, m.anchor, m.row, m.column, m.class_id), 1).float()
    mine = torch.cat((integers, m.box, m.anchor_wh), 1).numpy()
    theirs = arrays[f"assign{scale}"]
    assert mine.shape == theirs.shape
    # the order of matches is free; sorted by all columns both are the same table
    np.testing.assert_allclose(mine[np.lexsort(mine.T[::-1])], theirs[np.lexsort(theirs.T[::-1])], atol=1e-4)


def test_a_target_is_assigned_to_its_cell_and_the_nearer_neighbors() -> None:
    targets = torch.tensor([[0, 0, 0.53, 0.58, 0.2, 0.2]])  # cell 5.3, 5.8 of a grid of 10
    m = assign(targets, torch.tensor([[2.0, 2.0]]), (10, 10), anchor_t=4.0)
    assert set(zip(m.row.tolist(), m.column.tolist(), strict=True)) == {(5, 5), (5, 4), (6, 5)}


def test_a_target_at_the_edge_stays_on_the_grid() -> None:
    for center in (0.001, 0.999):
        targets = torch.tensor([[0, 0, center, center, 0.2, 0.2]])
        m = assign(targets, torch.tensor([[2.0, 2.0]]), (10, 10), anchor_t=4.0)
        cell = 0 if center < 0.5 else 9
        assert set(zip(m.row.tolist(), m.column.tolist(), strict=True)) == {(cell, cell)}


@pytest.mark.parametrize(("side", "matches"), [(0.079, True), (0.081, False)])
def test_an_anchor_matches_below_the_side_ratio(side: float, matches: bool) -> None:
    m = assign(torch.tensor([[0, 0, 0.55, 0.55, side, 0.02]]), torch.tensor([[0.2, 0.2]]), (10, 10), anchor_t=4.0)
    assert (len(m) > 0) is matches


def test_loss_weights_scale_with_scales_classes_and_area() -> None:
    hyp = Hyperparameters()
    assert scaled_loss_weights(hyp, 3, 80, (640, 640)) == LossWeights(hyp.box, hyp.obj, hyp.cls)
    weights = scaled_loss_weights(hyp, 4, 20, (640, 320))
    assert weights.box == pytest.approx(hyp.box * 3 / 4)
    assert weights.obj == pytest.approx(hyp.obj * 0.5 * 3 / 4)
    assert weights.cls == pytest.approx(hyp.cls * 20 / 80 * 3 / 4)


@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5, 6])
def test_every_number_of_scales_has_a_balance(scales: int) -> None:
    balance = scale_balance(scales)
    assert len(balance) == scales
    assert balance[0] == 4.0
    assert list(balance) == sorted(balance, reverse=True)


def test_perfect_predictions_cost_less_than_wrong_ones() -> None:
    anchors = torch.tensor([[[4.0, 4.0]]])
    hyp = replace(Hyperparameters(), box=1.0, cls=1.0)
    loss = DetectionLoss(anchors, 2, hyp, LossWeights(1, 1, 1))
    targets = torch.tensor([[0, 1, 0.525, 0.525, 0.4, 0.4]])  # the middle of cell 5; size 4 cells
    good = torch.full((1, 1, 10, 10, 7), -9.0)
    good[..., :4] = 0.0  # σ = ½: center of the cell, size of the anchor
    for row, column in ((5, 5),):
        good[0, 0, row, column, 4] = 9.0
        good[0, 0, row, column, 6] = 9.0
    bad = -good
    assert loss([good], targets).total < 0.1 * loss([bad], targets).total


def test_gradients_repeat_to_the_bit_with_two_threads_and_many_targets() -> None:
    """Many matches of one prediction, more than torch sums in one thread."""
    generator = torch.Generator().manual_seed(0)
    loss = DetectionLoss(
        torch.tensor([[[1.0, 1.0], [1.5, 1.5]]]), 80, Hyperparameters(), LossWeights(1.0, 1.0, 1.0), strides=(16,)
    )
    raw = torch.randn(4, 2, 10, 10, 85, generator=generator)
    targets = torch.rand(1000, 6, generator=generator) * 0.1 + 0.1
    targets[:, 0] = torch.arange(1000) % 4
    targets[:, 1] = torch.arange(1000) % 80

    def gradient() -> torch.Tensor:
        leaf = raw.clone().requires_grad_()
        loss([leaf], targets).total.backward()
        assert leaf.grad is not None
        return leaf.grad

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(40))
    finally:
        torch.set_num_threads(threads)
