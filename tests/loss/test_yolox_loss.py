"""YOLOX's loss and its SimOTA assignment against the published ones, and where they do not apply."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.waits import Waits
from yolo_cli.config import LOSSES as NAMES
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import World
from yolo_cli.errors import UserError
from yolo_cli.loss.losses import LOSSES, LossSettings, build_loss
from yolo_cli.loss.yolox import Cells, YOLOXLoss, assign_cells, assign_whole_batch
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.heads import Head

CASES = ("default", "with_l1", "no_boxes")


def head_of(nc: int) -> Head:
    architecture = find_architecture("yolox-nano").with_classes(nc)
    return DetectionModel(replace(architecture, width=architecture.width / 8)).head


def targets_of(labels: Tensor, height: int, width: int) -> Tensor:
    """Rows image, class, cx, cy, w, h as fractions from padded rows class, cx, cy, w, h in pixels."""
    rows = [torch.cat((torch.full((len(own), 1), float(i)), own), 1) for i, own in enumerate(labels)]
    found = torch.cat([own[own[:, 1:].sum(1) > 0] for own in rows])
    found[:, 2:] /= torch.tensor([width, height, width, height])
    return found


@pytest.fixture(params=CASES)
def published(
    reference_file: Callable[[str], Path], request: pytest.FixtureRequest
) -> tuple[dict[str, Any], list[Tensor], Tensor, Any]:
    facts = json.loads(reference_file(f"reference/loss/yolox/{request.param}.json").read_text())
    stored = np.load(reference_file(f"reference/loss/yolox/{request.param}.npz"))
    maps = [torch.from_numpy(stored[f"raw{i}"]).permute(0, 2, 3, 1)[:, None].clone() for i in range(3)]
    return facts, maps, targets_of(torch.from_numpy(stored["labels"]), *facts["image_hw"]), stored


def test_parts_and_gradients_equal_the_published_ones(
    published: tuple[dict[str, Any], list[Tensor], Tensor, Any],
) -> None:
    facts, maps, targets, stored = published
    hyp = Hyperparameters(nominal_batch=len(maps[0]))  # so that the total is that of the batch
    for y in maps:
        y.requires_grad_()
    loss = YOLOXLoss(head_of(facts["nc"]), hyp, l1=1.0 if facts["l1"] else 0.0)(maps, targets)
    loss.total.backward()
    assert loss.box.item() == pytest.approx(facts["iou_times_5"] + facts["l1"], rel=1e-5)
    assert loss.obj.item() == pytest.approx(facts["obj"], rel=1e-5)
    assert loss.cls.item() == pytest.approx(facts["cls"], rel=1e-5)
    assert loss.total.item() == pytest.approx(facts["total"], rel=1e-5)
    for scale, y in enumerate(maps):
        theirs = stored[f"grad{scale}"]
        assert y.grad is not None
        np.testing.assert_allclose(y.grad[:, 0].permute(0, 3, 1, 2), theirs, atol=1e-5 * np.abs(theirs).max())


def test_without_l1_the_box_part_is_the_iou_loss_alone(reference_file: Callable[[str], Path]) -> None:
    facts = json.loads(reference_file("reference/loss/yolox/with_l1.json").read_text())
    stored = np.load(reference_file("reference/loss/yolox/with_l1.npz"))
    maps = [torch.from_numpy(stored[f"raw{i}"]).permute(0, 2, 3, 1)[:, None] for i in range(3)]
    targets = targets_of(torch.from_numpy(stored["labels"]), *facts["image_hw"])
    loss = YOLOXLoss(head_of(facts["nc"]), Hyperparameters())(maps, targets)
    assert loss.box.item() == pytest.approx(facts["iou_times_5"], rel=1e-5)


@pytest.mark.parametrize("assign", [assign_cells, assign_whole_batch])
def test_assigned_cells_equal_the_published_ones(
    published: tuple[dict[str, Any], list[Tensor], Tensor, Any], assign: Callable[[Cells, Tensor], Any]
) -> None:
    facts, maps, targets, _ = published
    found = assign(Cells.of(head_of(facts["nc"]), maps), targets)
    first = {i: int((targets[:, 0] < i).sum()) for i in range(len(maps[0]))}
    rows = zip(found.image.tolist(), found.cell.tolist(), found.target.tolist(), strict=True)
    ours = sorted((image, cell, target - first[image]) for image, cell, target in rows)
    theirs = [
        (case["image"], cell, box)
        for case in facts["assigned"]
        for cell, box in zip(case["cells"], case["boxes"], strict=True)
    ]
    assert ours == theirs


def test_the_whole_batch_is_assigned_as_its_images_are() -> None:
    torch.manual_seed(0)
    head = head_of(4)
    maps = [torch.randn(5, 1, 128 // s, 160 // s, 9) for s in head.strides]
    image = torch.tensor([3, 0, 0, 4, 3, 3, 0, 3])  # not in order; images 1 and 2 have none
    box = torch.cat((torch.rand(8, 2), torch.rand(8, 2) * 0.4 + 0.02), 1)
    targets = torch.cat((image[:, None], torch.randint(4, (8, 1)), box), 1)
    cells = Cells.of(head, maps)
    one, other = (
        sorted(zip(*(getattr(a, k).tolist() for k in ("image", "cell", "target", "iou")), strict=True))
        for a in (assign_cells(cells, targets), assign_whole_batch(cells, targets))
    )
    assert one == other
    assert {row[0] for row in one} == {0, 3, 4}
    assert all(targets[row[2], 0] == row[0] for row in one)


def test_a_target_off_the_grid_has_no_cell() -> None:
    head = head_of(2)
    maps = [torch.zeros(1, 1, 64 // s, 64 // s, 7) for s in head.strides]
    far = torch.tensor([[0, 1, 9.0, 9.0, 0.1, 0.1]])
    assert len(assign_cells(Cells.of(head, maps), far).image) == 0
    assert YOLOXLoss(head, Hyperparameters())(maps, far).total.isfinite()


class Half(World):
    """One of two ranks, the other of which has the same numbers."""

    def __init__(self) -> None:
        super().__init__(rank=0, size=2, local_rank=0, local_size=2)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values * 2


def test_two_ranks_of_the_same_share_add_up_to_one_batch() -> None:
    torch.manual_seed(0)
    head, hyp = head_of(3), Hyperparameters()
    maps = [torch.randn(2, 1, 64 // s, 64 // s, 8) for s in head.strides]
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3], [1, 2, 0.3, 0.6, 0.2, 0.5]])
    again = targets + torch.tensor([2.0, 0, 0, 0, 0, 0])
    whole = YOLOXLoss(head, hyp)([y.repeat(2, 1, 1, 1, 1) for y in maps], torch.cat((targets, again)))
    share = YOLOXLoss(head, hyp, world=Half())(maps, targets)
    torch.testing.assert_close(share.values() * 2, whole.values())  # the ranks' parts are summed
    torch.testing.assert_close(share.total, whole.total)  # their gradients are averaged


def test_the_total_is_that_of_a_nominal_batch() -> None:
    head = head_of(3)
    maps = [torch.randn(2, 1, 64 // s, 64 // s, 8) for s in head.strides]
    loss = YOLOXLoss(head, Hyperparameters(nominal_batch=8))(maps, torch.zeros(0, 6))
    torch.testing.assert_close(loss.total, loss.values().sum() * 2 / 8)


def test_hyperparameters_scale_the_published_weights() -> None:
    head, targets = head_of(3), torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3]])
    maps = [torch.randn(1, 1, 64 // s, 64 // s, 8) for s in head.strides]
    usual = YOLOXLoss(head, Hyperparameters())(maps, targets).values()
    default = Hyperparameters()
    doubled = replace(default, box=2 * default.box, cls=4 * default.cls)
    other = YOLOXLoss(head, doubled)(maps, targets).values()
    torch.testing.assert_close(other / usual, torch.tensor([2.0, 1.0, 4.0]))


def test_the_option_has_the_names_of_the_table() -> None:
    assert tuple(LOSSES) == NAMES


@pytest.mark.parametrize(
    ("cfg", "name", "settings", "message"),
    [
        ("yolox-nano", "anchor", {}, "yolox-nano has no anchors; give --loss simota"),
        ("yolox-nano", "ota", {}, "yolox-nano has no anchors; give --loss simota"),
        ("n", "simota", {}, "yolov5n has anchors; give --loss anchor or ota"),
        ("yolox-nano", "simota", {"label_smoothing": 0.1}, "has no effect with --loss simota; leave it out"),
        ("yolox-nano", "simota", {"hyp": Hyperparameters(fl_gamma=1.5)}, "fl_gamma has no effect with --loss simota"),
        ("n", "anchor", {"hyp": Hyperparameters(l1=1.0, close_mosaic=5)}, "l1 has no effect with --loss anchor"),
        ("n", "nothing", {}, "unknown loss"),
    ],
)
def test_what_does_not_go_together_is_refused(cfg: str, name: str, settings: dict[str, Any], message: str) -> None:
    model = DetectionModel(find_architecture(cfg))
    with pytest.raises(UserError, match=message):
        build_loss(name, model, replace(LossSettings(Hyperparameters(), (64, 64)), **settings))


def test_the_number_of_waits_does_not_grow_with_the_batch() -> None:
    head, found = head_of(80), []
    for images in (1, 4):
        raw = [torch.randn(images, 1, side, side, 85) for side in (8, 4, 2)]
        targets = torch.rand(5 * images, 6) * 0.5 + 0.25
        targets[:, 0] = torch.arange(images).repeat_interleave(5)
        targets[:, 1] = 0
        with Waits().counting() as counted:
            assign_whole_batch(Cells.of(head, raw), targets)
        found.append(counted.totals()["loop"])
    assert found == [10, 10]  # the loss has three more
