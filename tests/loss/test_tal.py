"""Task-aligned assignment, distribution focal loss, and the head that they are for."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.train.waits import Waits
from yolo_cli.batch import TargetCounts
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import World
from yolo_cli.errors import UserError
from yolo_cli.loss import tal
from yolo_cli.loss.losses import LossSettings, build_loss
from yolo_cli.loss.ota import pad_targets
from yolo_cli.loss.tal import AlignedCells, TALLoss, assign_aligned, assign_padded, distribution_focal_loss
from yolo_cli.model.aligned_head import BINS, START, AlignedDetect
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.candidates import decode_candidates

IMAGES, CLASSES, SIDES = 3, 3, (64, 96)  # height and width
TARGETS = torch.tensor(
    [[0, 1, 0.5, 0.5, 0.4, 0.3], [0, 2, 0.55, 0.5, 0.3, 0.5], [2, 0, 0.2, 0.3, 0.25, 0.2], [2, 0, 0.9, 0.9, 0.01, 0.01]]
)
Pairs = dict[tuple[int, int], tuple[int, float]]  # (image, cell) → target, normalized alignment


@pytest.fixture(scope="module")
def head() -> AlignedDetect:
    torch.manual_seed(0)
    made = AlignedDetect(CLASSES, 8, False, [8, 8, 8])
    made.place((8, 16, 32))
    return made


def random_maps(head: AlignedDetect, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(IMAGES, 1, SIDES[0] // s, SIDES[1] // s, head.outputs) for s in head.strides]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def random_targets(seed: int, count: int, *, regions: int = 0) -> Tensor:
    """In the order of their images, with regions at the end."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count + regions, 6, generator=generator)
    rows[:, 0] = (rows[:, 0] * IMAGES).floor()
    rows[:, 1] = (rows[:, 1] * CLASSES).floor()
    rows[:, 4:] = rows[:, 4:] * 0.7 + 0.02
    rows[count:, 1] = -1
    return torch.cat((rows[:count][rows[:count, 0].argsort()], rows[count:]))


def assigned_by_loops(head: AlignedDetect, maps: list[Tensor], targets: Tensor) -> Pairs:
    """The assignment as the paper describes it. Leaves out examples that rounding could decide."""
    decoded = head.decode([y.detach() for y in maps])
    probability, boxes = decoded[..., 5:] * decoded[..., 4:5], cxcywh_to_xyxy(decoded[..., :4])
    centers = [
        ((column + 0.5) * s, (row + 0.5) * s)
        for s in head.strides
        for row in range(SIDES[0] // s)
        for column in range(SIDES[1] // s)
    ]
    candidates: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    pixels = targets.double() * torch.tensor([1, 1, SIDES[1], SIDES[0], SIDES[1], SIDES[0]])
    for t, (image, class_id, cx, cy, w, h) in enumerate(pixels.tolist()):
        box = torch.tensor([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]])
        iou = pairwise_iou(box, boxes[int(image)])[0].tolist()
        scores = []
        for n, (x, y) in enumerate(centers):
            if abs(x - cx) < w / 2 and abs(y - cy) < h / 2:
                s = probability[int(image), n, int(class_id)].item()
                scores.append((s**tal.ALPHA * iou[n] ** tal.BETA, n))
        scores.sort(reverse=True)
        near = [a for a, _ in scores[tal.TOPK - 1 : tal.TOPK + 1]]
        assume(len(near) < 2 or near[0] > 1.0001 * near[1])
        for alignment, n in scores[: tal.TOPK]:
            if alignment > 1e-36:
                candidates.setdefault((int(image), n), []).append((iou[n], t, alignment))
    owners = {}
    for pair, found in candidates.items():
        found.sort(reverse=True)
        assume(len(found) < 2 or found[0][0] > 1.0001 * found[1][0])
        owners[pair] = found[0]
    result = {}
    for pair, (_, t, alignment) in owners.items():
        own = [(u, a) for u, other, a in owners.values() if other == t]
        result[pair] = (t, alignment / max(a for _, a in own) * max(u for u, _ in own))
    return result


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 12))
def test_assignment_equals_one_written_as_loops(head: AlignedDetect, seed: int, count: int) -> None:
    targets, maps = random_targets(seed, count), random_maps(head, seed)
    expected = assigned_by_loops(head, maps, targets)
    cells, most = AlignedCells.of(head, maps), TargetCounts.of(targets).most
    padded = pad_targets(targets, IMAGES, most)
    rows = [i * most + int((targets[:, 0][:k] == i).sum()) for k, i in enumerate(targets[:, 0].long().tolist())]
    original = {row: k for k, row in enumerate(rows)}
    for found, number in (
        (assign_aligned(cells, targets, targets[:, 2:] * cells.sides()), lambda t: t),
        (assign_padded(cells, padded, padded[:, 2:] * cells.sides()), original.get),
    ):
        valid = found.rows(found.valid)
        pairs = zip(valid.image.tolist(), valid.cell.tolist(), strict=True)
        ours = dict(
            zip(pairs, zip(map(number, valid.target.tolist()), valid.alignment.tolist(), strict=True), strict=True)
        )
        assert len(ours) == len(valid.image)  # no cell has two targets
        assert {pair: t for pair, (t, _) in ours.items()} == {pair: t for pair, (t, _) in expected.items()}
        assert {pair: a for pair, (_, a) in ours.items()} == pytest.approx(
            {pair: a for pair, (_, a) in expected.items()}, rel=1e-3
        )


def test_many_targets_are_assigned_in_pieces(head: AlignedDetect, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, cells = random_targets(3, 20), AlignedCells.of(head, random_maps(head))
    padded = pad_targets(targets, IMAGES, TargetCounts.of(targets).most)
    gt = padded[:, 2:] * cells.sides()
    whole = assign_padded(cells, padded, gt)
    monkeypatch.setattr(tal, "_PAIRS", 1)
    pieces = assign_padded(cells, padded, gt)
    for name in ("image", "cell", "target", "alignment", "valid"):
        assert torch.equal(getattr(whole, name), getattr(pieces, name))


@pytest.mark.parametrize(("count", "regions"), [(0, 0), (0, 2), (25, 0), (25, 3)])
def test_loss_and_gradients_with_fixed_shapes_are_the_same(head: AlignedDetect, count: int, regions: int) -> None:
    targets, results = random_targets(count, count, regions=regions), []
    mixed = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    for fixed, given_targets, counts in (
        (False, mixed, None),
        (True, targets, TargetCounts.of(targets)),
        (True, mixed, None),
    ):
        loss, maps = TALLoss(head, Hyperparameters()), random_maps(head)
        assert not loss.fixed  # on the CPU
        loss.fixed = fixed
        parts = loss(maps, given_targets, counts)
        parts.total.backward()
        results.append((parts.values(), [y.grad for y in maps]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-6)


def test_the_host_waits_for_no_value_on_a_gpu(head: AlignedDetect) -> None:
    targets, maps = random_targets(5, 20, regions=2), random_maps(head)
    loss, counts = TALLoss(head, Hyperparameters()), TargetCounts.of(targets)
    for fixed in (False, True):
        loss.fixed = fixed
        with Waits().counting() as counted:
            loss(maps, targets, counts).total.backward()
        assert bool(counted.found) is not fixed, counted.found


def test_without_targets_only_the_classes_have_a_loss(head: AlignedDetect) -> None:
    loss = TALLoss(head, Hyperparameters())(random_maps(head), torch.zeros(0, 6))
    assert loss.box.item() == loss.obj.item() == 0
    assert loss.cls.item() > 0


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([[0, 1, 0.5, 0.5, 0.0, 0.0], [0, 1, 0.5, 0.5, 0.5, 0.0]]),  # without area
        torch.tensor([[0, 1, 9.0, 9.0, 0.1, 0.1], [1, 0, 0.5, 0.5, 5.0, 5.0]]),  # off the grid, larger than the image
        torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3]]).repeat(200, 1),  # more targets than cells, all the same
    ],
    ids=["no area", "off the grid", "many"],
)
@pytest.mark.parametrize("values", [0.0, 60.0, -200.0, 1e4])
def test_odd_targets_and_predictions_have_finite_gradients(
    head: AlignedDetect, targets: Tensor, fixed: bool, values: float
) -> None:
    maps = [y.detach() * values for y in random_maps(head)]
    for y in maps:
        y[..., 0::BINS] += 2 * values  # most mass on a distance of 0: boxes without area
        y.requires_grad_()
    loss = TALLoss(head, Hyperparameters())
    loss.fixed = fixed
    total = loss(maps, targets).total
    total.backward()
    assert total.isfinite()
    assert all(y.grad is not None and y.grad.isfinite().all() for y in maps)


def test_predictions_in_bfloat16_have_nearly_the_same_loss(head: AlignedDetect) -> None:
    loss, maps = TALLoss(head, Hyperparameters()), random_maps(head)
    half = loss([y.detach().bfloat16() for y in maps], TARGETS)
    assert half.total.dtype == torch.float32
    torch.testing.assert_close(half.values(), loss(maps, TARGETS).values(), rtol=0.05, atol=0)


def test_distribution_focal_loss_is_least_where_the_two_bins_have_the_distance_as_mean() -> None:
    distance = torch.tensor([2.25])
    values = torch.full((1, BINS), -40.0)
    values[0, 2], values[0, 3] = math.log(0.75), math.log(0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert distribution_focal_loss(values, distance).item() == pytest.approx(entropy, rel=1e-5)
    assert distribution_focal_loss(torch.zeros(1, BINS), torch.tensor([99.0])).item() == pytest.approx(math.log(BINS))


class Half(World):
    """One of two ranks, the other of which has the same numbers."""

    def __init__(self) -> None:
        super().__init__(rank=0, size=2, local_rank=0, local_size=2)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values * 2


def test_two_ranks_of_the_same_share_add_up_to_one_batch(head: AlignedDetect) -> None:
    hyp, maps = Hyperparameters(), random_maps(head)
    again = TARGETS + torch.tensor([IMAGES, 0, 0, 0, 0, 0])
    whole = TALLoss(head, hyp)([y.repeat(2, 1, 1, 1, 1) for y in maps], torch.cat((TARGETS, again)))
    share = TALLoss(head, hyp, world=Half())(maps, TARGETS)
    torch.testing.assert_close(share.values() * 2, whole.values())  # the ranks' parts are summed
    torch.testing.assert_close(share.total, whole.total)  # their gradients are averaged


def test_hyperparameters_scale_the_weights(head: AlignedDetect) -> None:
    default, maps = Hyperparameters(), random_maps(head)
    usual = TALLoss(head, default)(maps, TARGETS).values()
    changed = replace(default, box=2 * default.box, obj=3 * default.obj, cls=4 * default.cls)
    other = TALLoss(head, changed)(maps, TARGETS).values()
    torch.testing.assert_close(other / usual, torch.tensor([2.0, 3.0, 4.0]))


def test_boxes_start_with_two_cells_to_each_side(head: AlignedDetect) -> None:
    values = head.reg_preds[0].bias
    assert isinstance(values, Tensor)
    box = head.boxes(values[None], torch.ones(1, 2), 0)
    assert box[0].tolist() == pytest.approx([0.5, 0.5, 2 * START, 2 * START], rel=0.02)


def test_decoded_boxes_are_those_of_the_formula(head: AlignedDetect) -> None:
    maps = [y.detach() for y in random_maps(head)]
    rows = head.decode(maps)
    start = 0
    for y, stride in zip(maps, head.strides, strict=True):
        height, width = y.shape[2:4]
        for row, column in ((0, 0), (height - 1, width // 2)):
            sides = []
            for values in y[1, 0, row, column, : 4 * BINS].view(4, BINS).tolist():
                weights = [math.exp(v) for v in values]
                sides.append(stride * sum(i * w for i, w in enumerate(weights)) / sum(weights))
            x, y_center = (column + 0.5) * stride, (row + 0.5) * stride
            corners = [x - sides[0], y_center - sides[1], x + sides[2], y_center + sides[3]]
            decoded = rows[1, start + row * width + column]
            assert cxcywh_to_xyxy(decoded[None, :4])[0].tolist() == pytest.approx(corners, abs=1e-3)
        start += height * width


def test_confidences_are_class_probabilities_and_candidates_are_those_rows(head: AlignedDetect) -> None:
    maps = [y.detach() for y in random_maps(head)]
    rows = head.decode(maps)
    torch.testing.assert_close(rows[..., 5:] * rows[..., 4:5], AlignedCells.of(head, maps).logits().sigmoid())
    conf = rows[..., 4].median().item()
    for image, found in zip(rows, decode_candidates(head, maps, conf), strict=True):
        torch.testing.assert_close(found[found[:, 4] > conf], image[image[:, 4] > conf])


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(0)
    architecture = find_architecture("yolov5n-tal").with_classes(CLASSES)
    return DetectionModel(replace(architecture, width=architecture.width / 4))


def test_a_model_learns_a_batch_and_repeats_its_bits(model: DetectionModel) -> None:
    images = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    state, runs = {key: value.clone() for key, value in model.state_dict().items()}, []
    for _ in range(2):
        model.load_state_dict(state)
        loss = build_loss("tal", model, LossSettings(Hyperparameters(nominal_batch=3), (96, 96)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
        values = []
        for _ in range(15):
            output = loss(model(images), TARGETS)
            optimizer.zero_grad()
            output.total.backward()
            optimizer.step()
            values.append(output.values())
        runs.append(torch.stack(values))
    assert runs[0][-1, 0] < 0.7 * runs[0][0, 0]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("cfg", "name", "settings_", "message"),
    [
        ("n-tal", "simota", {}, "yolov5n-tal has no objectness; give --loss tal"),
        ("n-tal", "anchor", {}, "yolov5n-tal has no objectness; give --loss tal"),
        ("n", "tal", {}, "yolov5n has anchors; give --loss anchor or ota"),
        ("yolox-nano", "tal", {}, "yolox-nano has no anchors; give --loss simota"),
        ("n-tal", "tal", {"label_smoothing": 0.1}, "has no effect with --loss tal; leave it out"),
        ("n-tal", "tal", {"hyp": Hyperparameters(fl_gamma=1.5)}, "fl_gamma has no effect with --loss tal"),
        ("n-tal", "tal", {"hyp": Hyperparameters(l1=1.0, close_mosaic=5)}, "l1 has no effect with --loss tal"),
    ],
)
def test_what_does_not_go_together_is_refused(cfg: str, name: str, settings_: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(find_architecture(cfg))
    with pytest.raises(UserError, match=message):
        build_loss(name, model, replace(LossSettings(Hyperparameters(), (64, 64)), **settings_))
