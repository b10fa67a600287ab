"""Nothing is learned about objectness, or the classes of heads without it, inside a region to be ignored."""

import pytest
import torch

from yolo_cli.config import Hyperparameters
from yolo_cli.loss.ignore import cells_to_ignore
from yolo_cli.loss.losses import LossSettings, build_loss
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel

CASES = [
    ("n", "anchor", 0.0),
    ("n", "ota", 0.0),
    ("n", "anchor", 1.5),
    ("yolox-nano", "simota", 0.0),
    ("n-tal", "tal", 0.0),
]


@pytest.mark.parametrize(("cfg", "name", "gamma"), CASES)
def test_the_gradient_is_zero_inside(cfg: str, name: str, gamma: float) -> None:
    torch.manual_seed(0)
    model = DetectionModel(find_architecture(cfg).with_classes(3)).train()
    loss = build_loss(name, model, LossSettings(Hyperparameters(fl_gamma=gamma), (64, 96)))
    raw = [map_.detach().requires_grad_() for map_ in model(torch.rand(2, 3, 64, 96))]
    box = torch.tensor([[0, 1, 0.8, 0.5, 0.2, 0.3]])
    region = torch.tensor([[0, -1, 0.25, 0.5, 0.5, 1.0]])  # the left half of the first image
    loss(raw, torch.cat([box, region])).total.backward()
    for map_ in raw:
        assert map_.grad is not None
        columns = map_.shape[3]
        assert (map_.grad[0, :, :, : columns // 2] == 0).all()
        objectness = map_.grad[..., model.head.box_outputs]
        assert (objectness[1] != 0).all()
        assert (objectness[0, :, :, columns // 2 + 1 :] != 0).all()


@pytest.mark.parametrize(("cfg", "name", "gamma"), CASES)
def test_labeled_boxes_in_a_region_are_learned(cfg: str, name: str, gamma: float) -> None:
    torch.manual_seed(0)
    model = DetectionModel(find_architecture(cfg).with_classes(3)).train()
    loss = build_loss(name, model, LossSettings(Hyperparameters(fl_gamma=gamma), (64, 64)))
    raw = model(torch.rand(1, 3, 64, 64))
    box = torch.tensor([[0, 1, 0.3, 0.5, 0.2, 0.3]])
    everywhere = torch.tensor([[0, -1, 0.5, 0.5, 1.0, 1.0]])
    plain, inside = loss(raw, box), loss(raw, torch.cat([box, everywhere]))
    assert inside.box == plain.box > 0
    same, fewer = ("cls", "obj") if model.head.has_objectness else ("obj", "cls")
    assert getattr(inside, same) == getattr(plain, same) > 0
    assert 0 < getattr(inside, fewer) < getattr(plain, fewer)


def test_without_regions_nothing_changes() -> None:
    torch.manual_seed(0)
    model = DetectionModel(find_architecture("n").with_classes(3)).train()
    loss = build_loss("anchor", model, LossSettings(Hyperparameters(), (64, 64)))
    raw = model(torch.rand(1, 3, 64, 64))
    targets = torch.tensor([[0, 1, 0.3, 0.5, 0.2, 0.3]])
    tiny = torch.tensor([[0, -1, 0.001, 0.001, 0.0001, 0.0001]])  # holds no cell's center
    assert torch.equal(loss(raw, targets).values(), loss(raw, torch.cat([targets, tiny])).values())


def test_cells_are_those_whose_center_is_inside() -> None:
    regions = torch.tensor([[1, -1, 0.5, 0.25, 0.5, 0.5], [1, -1, 0.9, 0.9, 0.05, 0.05]])
    cells = cells_to_ignore(regions, 2, 4, 4)
    assert not cells[0].any()
    assert cells[1].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
