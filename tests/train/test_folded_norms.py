"""Norms that were folded before: the eval output stays, and training mode gives about the same."""

import copy

import pytest
import torch
from torch import nn

from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.model.build import DetectionModel
from yolo_cli.train.folded_norms import is_folded, restore_norms


@pytest.fixture
def folded() -> DetectionModel:
    """A model whose norms only add a bias, with kernels as far from unit variance as folding leaves them."""
    torch.manual_seed(0)
    model = DetectionModel(find_architecture("yolox-nano").with_classes(3)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.constant_(module.running_var, 1 - BN_EPS)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 2
    return model


def test_the_output_stays_and_training_mode_agrees_with_it(folded: DetectionModel) -> None:
    torch.manual_seed(1)
    images = [torch.rand(8, 3, 96, 96) for _ in range(4)]
    before = copy.deepcopy(folded)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert restore_norms(folded, images) == count
    assert not any(is_folded(m) for m in folded.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        expected, found, trained = before(images[0]), folded(images[0]), folded.train()(images[0])
        naive = before.train()(images[0])
    for a, b, c, d in zip(expected, found, trained, naive, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3 * float(a.abs().max()))
        assert (c - a).abs().mean() < 0.3 * (d - a).abs().mean()


def test_live_norms_are_left_alone() -> None:
    model = DetectionModel(find_architecture("n").with_classes(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert restore_norms(model, [torch.rand(2, 3, 64, 64)]) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
