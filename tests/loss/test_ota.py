"""SimOTA alone, and the losses that use it against the published YOLOv7 losses."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolo_cli.config import Hyperparameters
from yolo_cli.loss.detection import AUXILIARY_NEIGHBOR_BIAS, NEIGHBOR_BIAS, DetectionLoss, LossWeights
from yolo_cli.loss.ota import class_cost, dynamic_k

SIZE = 320


@pytest.fixture(scope="module")
def published(reference_file: Callable[[str], Path]) -> tuple[dict[str, Any], torch.Tensor]:
    cases = json.loads(reference_file("reference/loss/yolov7_cases.json").read_text())["cases"]
    return cases, torch.from_numpy(np.load(reference_file("reference/loss/default.npz"))["targets"])


@pytest.mark.parametrize("name", ["ota", "aux_ota", "anchor"])
def test_losses_equal_the_published_ones(published: tuple[dict[str, Any], torch.Tensor], name: str) -> None:
    case, targets = published[0][name], published[1]
    known = {field.name for field in fields(Hyperparameters)}
    hyp = Hyperparameters(**{key: value for key, value in case["hyp"].items() if key in known})
    strides, auxiliary = case["strides"], "matched_auxiliary" in case
    rng = np.random.default_rng(7)
    maps = [
        torch.from_numpy(rng.standard_normal((8, 3, SIZE // s, SIZE // s, 85)).astype(np.float32)).requires_grad_()
        for s in strides * (2 if auxiliary else 1)
    ]
    anchors = torch.tensor(case["anchors"]).view(len(strides), 3, 2) / torch.tensor(strides).view(-1, 1, 1)
    matching = "ota" if "matched" in case else "anchor"
    weights = LossWeights(hyp.box, hyp.obj, hyp.cls)
    loss = DetectionLoss(anchors, 80, hyp, weights, matching=matching, auxiliary=auxiliary)
    parts = loss(maps, targets[: case["targets"]])
    parts.total.backward()
    for mine, theirs in ((parts.total, "total"), (parts.box, "lbox"), (parts.obj, "lobj"), (parts.cls, "lcls")):
        assert mine.item() == pytest.approx(case[theirs], rel=1e-4)
    np.testing.assert_allclose([m.grad.norm().item() for m in maps if m.grad is not None], case["grad_norm"], rtol=1e-4)
    main = maps[: len(strides)]
    for reach, key in ((NEIGHBOR_BIAS, "matched"), (AUXILIARY_NEIGHBOR_BIAS, "matched_auxiliary")):
        if key in case:
            assert [len(m) for m in loss.matches(main, targets, reach)] == case[key]


def test_dynamic_k_is_the_sum_of_the_top_ious() -> None:
    iou = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.0, 0.1, 0.1, 0.0]])
    cost = torch.tensor([[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 5.0]])
    assert dynamic_k(cost, iou, 10).tolist() == [[True, True, False, False], [False, False, False, True]]
    assert dynamic_k(cost, iou, 1).sum(1).tolist() == [1, 1]  # only the largest IoU counts: 0.9, at least 1


def test_a_candidate_of_two_targets_is_assigned_to_the_one_of_lower_cost() -> None:
    cost = torch.tensor([[1.0, 7.0], [2.0, 8.0]])
    assert dynamic_k(cost, torch.full((2, 2), 0.1), 10).tolist() == [[True, False], [False, False]]


def test_class_cost_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(5, 4), torch.tensor([2, 0])
    probability = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt()
    for row, target in enumerate(torch.eye(3)[classes]):
        expected = torch.nn.functional.binary_cross_entropy(probability, target.expand(5, 3), reduction="none").sum(1)
        torch.testing.assert_close(class_cost(logits, classes)[row], expected)
    assert class_cost(torch.full((1, 4), 90.0), classes).isfinite().all()


def test_loss_without_targets_or_candidates_is_finite() -> None:
    loss = DetectionLoss(torch.full((1, 1, 2), 2.0), 3, Hyperparameters(), LossWeights(1, 1, 1), matching="ota")
    maps = [torch.zeros(2, 1, 4, 4, 8)]
    far = torch.tensor([[1, 0, 0.5, 0.5, 0.001, 0.9]])  # no anchor has this shape
    for targets in (torch.zeros(0, 6), far):
        parts = loss(maps, targets)
        assert parts.total.isfinite()
        assert parts.box == 0


def test_an_unknown_matching_is_refused() -> None:
    with pytest.raises(ValueError, match="anchor, ota"):
        DetectionLoss(torch.ones(1, 1, 2), 1, Hyperparameters(), LossWeights(1, 1, 1), matching="hungarian")
