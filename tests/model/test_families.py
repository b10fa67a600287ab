"""What only some families have: classifiers, a pyramid, auxiliary outputs, anchors stored twice."""

import copy
from typing import Any

import pytest
import torch

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture, from_mapping
from yolo_cli.model.build import DetectionModel, count_parameters, layer_rows
from yolo_cli.model.classifiers import darknet53, resnet50
from yolo_cli.model.fuse import fuse
from yolo_cli.train.optim import ModelEMA, parameter_groups

AUXILIARY: dict[str, Any] = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30], [40, 50, 60, 70]],
    "anchor_grid": True,
    "backbone": [[-1, 1, "ReOrg", []], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "DownC", [32]]],
    "head": [
        [1, 1, "Conv", [16, 3]],
        [2, 1, "Conv", [32, 3]],
        [1, 1, "Conv", [24, 3]],
        [2, 1, "Conv", [40, 3]],
        [[3, 4, 5, 6], 1, "IAuxDetect", ["nc", "anchors"]],
    ],
}


@pytest.fixture
def auxiliary() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(from_mapping(AUXILIARY, name="auxiliary", where="auxiliary"))


@pytest.mark.parametrize(("classes", "parameters"), [(1000, 25_557_032), (10, 23_528_522)])
def test_resnet50_counts(classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(resnet50(classes)) == parameters


def test_resnet50_equals_torchvisions() -> None:
    import torchvision  # takes seconds, so only the worker that needs it does

    theirs, mine = torchvision.models.resnet50(weights=None).eval(), resnet50().eval()
    assert [(k, v.shape) for k, v in mine.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    mine.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(mine(image), theirs(image), atol=1e-5, rtol=1e-5)


def test_kernels_are_initialized_with_the_variance_of_fan_out() -> None:
    torch.manual_seed(0)
    kernel = resnet50(10).layer3.state_dict()["0.conv2.weight"]  # fan-out of 256 × 3 × 3
    assert kernel.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_imagenet_weights_fit_the_detectors_backbone() -> None:
    classifier, detector = resnet50(10), DetectionModel(find_architecture("yolov5l-resnet50"))
    detector.model[0].load_state_dict({k: v for k, v in classifier.state_dict().items() if k[:3] in ("con", "bn1")})
    for number, stage in enumerate((classifier.layer1, classifier.layer2, classifier.layer3, classifier.layer4)):
        detector.model[1 + number].load_state_dict(stage.state_dict())
    norms = [m for m in detector.model[2].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-5}


def test_yolov3_fpn_counts() -> None:
    parameters = sum(row[3] for row in layer_rows(find_architecture("yolov3-fpn")))
    with torch.device("meta"):
        classifier = darknet53()
        five = DetectionModel(find_architecture("yolov3-fpn-5"))
    assert parameters == 62_029_789
    assert parameters + count_parameters(classifier.fc) == 63_054_789
    assert five.strides == (2, 4, 8, 16, 32)


def test_yolov3_fpn_outputs_at_416() -> None:
    with torch.device("meta"):
        model = DetectionModel(find_architecture("yolov3-fpn")).eval()
        raw = model(torch.zeros(1, 3, 416, 416))
    assert [tuple(y.shape) for y in raw] == [(1, 3, side, side, 85) for side in (52, 26, 13)]


def test_darknet53_is_the_backbone_of_yolov3_fpn() -> None:
    classifier = darknet53(10).eval()
    architecture = find_architecture("yolov3-fpn")
    with torch.device("meta"):
        backbone = DetectionModel(architecture).model[: architecture.backbone]
    theirs = {key: value.shape for key, value in backbone.state_dict().items()}
    assert {key: value.shape for key, value in classifier.model.state_dict().items()} == theirs
    with torch.inference_mode():
        assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_auxiliary_maps_are_returned_in_training_only(auxiliary: DetectionModel) -> None:
    image = torch.rand(1, 3, 32, 32)
    training = auxiliary(image)
    assert [tuple(y.shape[2:4]) for y in training] == [(8, 8), (4, 4)] * 2
    averaged = ModelEMA(auxiliary, 0.9, 0).model
    ran: list[int] = []
    for index in (5, 6):
        averaged.model[index].register_forward_hook(lambda *_, index=index: ran.append(index))
    with torch.inference_mode():
        main = averaged(image)
    assert len(main) == 2
    assert not ran
    assert averaged.decode(main).shape == (1, 2 * (64 + 16), 7)


def test_fuse_removes_auxiliary_layers(auxiliary: DetectionModel) -> None:
    auxiliary.eval()
    slim, image = fuse(auxiliary), torch.rand(1, 3, 32, 32)
    left = {key.split(".")[1] for key in slim.state_dict()}
    assert left == {"1", "2", "3", "4", "7"}
    assert "model.7.m2.0.weight" not in slim.state_dict()
    with torch.inference_mode():
        for a, b in zip(auxiliary(image), slim.train()(image), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_every_auxiliary_parameter_has_a_gradient(auxiliary: DetectionModel) -> None:
    sum(y.square().mean() for y in auxiliary(torch.rand(2, 3, 32, 32))).backward()
    assert all(p.grad is not None for p in auxiliary.parameters())
    decayed = {id(p) for p in parameter_groups(auxiliary)["weights"]}
    assert not [name for name, p in auxiliary.named_parameters() if "implicit" in name and id(p) in decayed]


def test_auxiliary_sources_must_mirror_the_main_ones() -> None:
    mapping = copy.deepcopy(AUXILIARY)
    mapping["head"][-1][0] = [3, 4, 6, 5]
    with pytest.raises(UserError, match="strides of the main ones"):
        from_mapping(mapping, name="x", where="x")


def test_anchor_grid_is_saved_but_not_required(auxiliary: DetectionModel) -> None:
    state = auxiliary.state_dict()
    assert state["model.7.anchor_grid"].flatten().tolist() == [10, 13, 16, 30, 40, 50, 60, 70]
    without = {key: value for key, value in state.items() if "anchor_grid" not in key}
    auxiliary.load_state_dict(without)
    plain = DetectionModel(from_mapping({**AUXILIARY, "anchor_grid": False}, name="x", where="x"))
    plain.load_state_dict(state)
    assert "model.7.anchor_grid" not in plain.state_dict()


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_anchor_grid_is_true_or_false(value: object) -> None:
    with pytest.raises(UserError, match="anchor_grid"):
        from_mapping({**AUXILIARY, "anchor_grid": value}, name="x", where="x")
