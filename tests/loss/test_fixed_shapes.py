"""Losses whose shapes depend on no value, as used on a GPU, equal those that compute with the matches only."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.waits import Waits
from yolo_cli.batch import TargetCounts
from yolo_cli.config import Hyperparameters
from yolo_cli.loss.assign import Assignment, assign
from yolo_cli.loss.detection import DetectionLoss, LossWeights

IMAGES, CLASSES = 3, 4
ANCHORS = torch.tensor([[[1.0, 1.2], [2.0, 3.0]], [[1.5, 1.5], [4.0, 2.0]], [[2.0, 1.0], [0.0, 0.0]]])


def random_targets(seed: int, count: int, *, regions: int = 0) -> torch.Tensor:
    """In the order of their images, with regions at the end."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count + regions, 6, generator=generator)
    rows[:, 0] = (rows[:, 0] * IMAGES).floor()
    rows[:, 1] = (rows[:, 1] * CLASSES).floor()
    rows[:, 4:] = rows[:, 4:] * 0.5 + 0.02
    rows[count:, 1] = -1
    return torch.cat((rows[:count][rows[:count, 0].argsort()], rows[count:]))


def random_maps(seed: int, scales: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [(8, 12), (4, 6), (2, 3)] * 2
    return [torch.randn(IMAGES, 2, *side, 5 + CLASSES, generator=generator).requires_grad_() for side in sides[:scales]]


def both(hyp: Hyperparameters, **settings_: object) -> tuple[DetectionLoss, DetectionLoss]:
    one, two = (DetectionLoss(ANCHORS, CLASSES, hyp, LossWeights(1, 1, 1), **settings_) for _ in range(2))  # type: ignore[arg-type]
    assert not one.fixed  # on the CPU
    two.fixed = True
    return one, two


def rows(m: Assignment) -> torch.Tensor:
    """The matches without their targets' numbers, which differ."""
    integers = torch.stack((m.image, m.anchor, m.row, m.column, m.class_id), 1)
    table = torch.cat((integers.float(), m.box, m.anchor_wh), 1)
    return table if m.valid is None else table[m.valid]


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), bias=st.sampled_from([0.5, 1.0]))
def test_matches_are_the_same_in_the_same_order(seed: int, count: int, bias: float) -> None:
    targets = random_targets(seed, count)
    for anchors, grid in zip(ANCHORS, ((8, 12), (4, 6), (2, 3)), strict=True):
        dynamic = assign(targets, anchors, grid, anchor_t=4.0, neighbor_bias=bias)
        fixed = assign(targets, anchors, grid, anchor_t=4.0, neighbor_bias=bias, fixed=True)
        assert len(fixed) == 5 * 2 * count
        assert torch.equal(rows(fixed), rows(dynamic))
        assert int(fixed.count()) == dynamic.count()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40))
def test_simota_assigns_the_same(seed: int, count: int) -> None:
    targets, maps = random_targets(seed, count), random_maps(seed, 3)
    dynamic, fixed = both(Hyperparameters(), matching="ota")
    most = TargetCounts.of(targets).most
    for a, b in zip(fixed.matches(maps, targets, 0.5, most), dynamic.matches(maps, targets, 0.5), strict=True):
        torch.testing.assert_close(rows(a).sort(0).values, rows(b).sort(0).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("matching", ["anchor", "ota"])
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("hyp", [{}, {"fl_gamma": 1.5}, {"obj_pw": 0.7, "cls_pw": 1.3}])
@pytest.mark.parametrize(("count", "regions"), [(0, 0), (0, 2), (25, 0), (25, 3)])
def test_loss_and_gradients_are_the_same(
    matching: str, auxiliary: bool, hyp: dict[str, float], count: int, regions: int
) -> None:
    losses = both(replace(Hyperparameters(), **hyp), matching=matching, auxiliary=auxiliary, label_smoothing=0.1)
    targets = random_targets(count, count, regions=regions)
    results = []
    for loss, counts in zip(losses, (None, TargetCounts.of(targets)), strict=True):
        maps = random_maps(7, 6 if auxiliary else 3)
        parts = loss(maps, targets, counts)
        parts.total.backward()
        results.append((parts.values(), [m.grad for m in maps]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("matching", ["anchor", "ota"])
def test_targets_can_be_in_any_order_if_nothing_is_known_of_them(matching: str) -> None:
    targets = random_targets(3, 20, regions=2)
    mixed = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    _, loss = both(Hyperparameters(), matching=matching)
    ordered = loss(random_maps(1, 3), targets, TargetCounts.of(targets)).values()
    torch.testing.assert_close(loss(random_maps(1, 3), mixed).values(), ordered)


@pytest.mark.parametrize("matching", ["anchor", "ota"])
def test_the_host_waits_for_no_value(matching: str) -> None:
    targets, maps = random_targets(5, 20, regions=2), random_maps(5, 6)
    dynamic, fixed = both(Hyperparameters(obj_pw=0.7), matching=matching, auxiliary=True)
    counts = TargetCounts.of(targets)
    for loss, waits in ((dynamic, True), (fixed, False)):
        with Waits().counting() as counted:
            loss(maps, targets, counts).total.backward()
        assert bool(counted.found) is waits, counted.found
