"""Single blocks: against the published ones, before and after fusing, and errors for invalid arguments."""

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated_mps import EmulatedMPS, module_on_mps, on_mps
from fixtures import formula
from torch import nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.fuse import Fusible
from yolo_cli.model.implicit import ImplicitA, ImplicitM
from yolo_cli.model.plan import PlannedModule, Scaling


def fuse_all(module: nn.Module) -> nn.Module:
    for part in list(module.modules()):
        if isinstance(part, Fusible):
            part.fuse()
    return module


def randomize(module: nn.Module) -> nn.Module:
    """Move statistics, scales and offsets away from 0 and 1, as training does."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (part.bias.data, part.running_mean):
                tensor.normal_(0, 0.3)
        if isinstance(part, ImplicitA | ImplicitM):
            part.implicit.data += torch.randn_like(part.implicit) * 0.3
    return module.eval()


NAMES = ("repconv_identity", "repconv_stride2", "repconv_groups2", "repconv_orepa", "repconv_orepa_stride2")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_published_block(reference_file: Callable[[str], Path], name: str) -> None:
    facts = json.loads(reference_file("reference/blocks/blocks.json").read_text())[name]
    stored = np.load(reference_file(f"reference/blocks/{name}.npz"))
    module = BLOCKS["RepConv_OREPA" if "orepa" in name else "RepConv"](*facts["arguments"]).eval()
    state = module.state_dict()
    assert [[key, list(value.shape)] for key, value in state.items()] == facts["state"]
    for key, value in state.items():
        if key in facts["kept_buffers"]:
            np.testing.assert_allclose(value, facts["kept_buffers"][key], atol=1e-6)
        elif "num_batches" not in key:
            value.copy_(torch.from_numpy(np.asarray(formula.fill(key, value.shape))))
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 8, 12, 10)).astype(np.float32))
    with torch.inference_mode():
        np.testing.assert_allclose(module(x), stored["output"], atol=1e-4)
        fused = fuse_all(module)(x)
    # the published fusing of grouped convolutions is wrong, so the expected output is that before fusing
    np.testing.assert_allclose(fused, stored["output"], atol=1e-4)
    assert [key for key, _ in module.named_parameters()] == ["rbr_reparam.weight", "rbr_reparam.bias"]


# channels of the sources, YAML arguments
CASES: dict[str, tuple[list[int], list[Any]]] = {
    "Bottleneck": ([16], [16]),
    "BottleneckCSP": ([16], [24]),
    "C3": ([16], [24]),
    "Concat": ([16, 8], [1]),
    "Conv": ([16], [24, 3, 2, None, 4, "nn.LeakyReLU(0.1)"]),
    "DepthwiseC3": ([16], [24]),
    "DepthwiseConv": ([16], [24, 3, 2]),
    "DownC": ([16], [24]),
    "Focus": ([16], [24, 3]),
    "MP": ([16], []),
    "MaxPool2d": ([16], [2, 2, 0]),
    "PyramidLevel": ([16, 8], []),
    "ReOrg": ([16], []),
    "RepConv": ([16], [16, 3, 1, None, 4]),
    "RepConv_OREPA": ([16], [24, 3, 2]),
    "ResNetStage": ([16], [32, 2]),
    "ResNetStem": ([3], [16]),
    "SP": ([16], [5]),
    "SPP": ([16], [24, [5, 9, 13]]),
    "SPPCSPC": ([16], [24]),
    "SPPF": ([16], [24, 5]),
    "Shortcut": ([16, 16], [1]),
    "Upsample": ([16], [None, 2, "nearest"]),
    "ZeroPad2d": ([16], [[0, 2, 0, 2]]),
}
ANCHORS = [[1, 2, 3, 4], [5, 6, 7, 8]]
# YAML arguments for two scales
HEADS: dict[str, list[Any]] = {
    "AlignedDetect": [4, 16, True],
    "DecoupledDetect": [4, 16, True],
    "Detect": [4, ANCHORS],
    "IAuxDetect": [4, ANCHORS],
    "IDetect": [4, ANCHORS],
}


def test_every_block_has_a_case() -> None:
    # Darknet's blocks are tested in test_darknet_blocks.py
    assert CASES.keys() | HEADS.keys() == {name for name in BLOCKS if not name.startswith("Darknet")}


def built(name: str, channels: list[int], args: list[Any]) -> tuple[PlannedModule, int, Fraction]:
    plan = BLOCKS[name].plan(channels, args, 1, Scaling())
    return BLOCKS[name](*plan.args), plan.channels, plan.scale


@pytest.mark.parametrize("name", CASES)
def test_a_block_has_the_shape_of_its_plan_and_keeps_its_output_when_fused(name: str) -> None:
    channels, args = CASES[name]
    module, out, scale = built(name, channels, args)
    randomize(module)
    x = [torch.randn(2, c, 16, 24) for c in channels]
    with torch.inference_mode():
        before = module(x if module.joins else x[0])
        after = fuse_all(module)(x if module.joins else x[0])
    expected = (16, 24) if name != "ZeroPad2d" else (18, 26)
    assert before.shape == (2, out, int(expected[0] * scale), int(expected[1] * scale))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("name", CASES)
def test_a_block_fuses_on_mps(name: str) -> None:
    channels, args = CASES[name]
    module = randomize(built(name, channels, args)[0])
    x = [torch.randn(2, c, 16, 24) for c in channels]
    with torch.inference_mode():
        expected = fuse_all(copy.deepcopy(module))(x if module.joins else x[0])
    with torch.no_grad(), EmulatedMPS():
        inputs = [on_mps(source) for source in x]
        fused = fuse_all(module_on_mps(module))(inputs if module.joins else inputs[0])
    assert fused.device.type == "mps"
    assert torch.equal(fused.cpu(), expected)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_keeps_its_output_when_fused(name: str) -> None:
    channels = [16, 32] * (2 if name == "IAuxDetect" else 1)
    head, _, _ = built(name, channels, HEADS[name])
    head.place((8, 16))  # type: ignore[operator]
    randomize(head)
    on_cpu = copy.deepcopy(head)
    x = [torch.randn(2, 16, 8, 8), torch.randn(2, 32, 4, 4)]
    with torch.inference_mode():
        before, after = head(x), fuse_all(head)(x)
    assert not any(isinstance(part, nn.BatchNorm2d | ImplicitA | ImplicitM) for part in head.modules())
    if name not in ("AlignedDetect", "DecoupledDetect"):
        assert {key.split(".")[0] for key in head.state_dict()} == {"anchors", "m"}
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    with torch.no_grad(), EmulatedMPS():
        on_device = fuse_all(module_on_mps(on_cpu))([on_mps(source) for source in x])
    for a, b in zip(after, on_device, strict=True):
        torch.testing.assert_close(a, b.cpu())


def test_reorg_orders_the_pixels_of_a_patch() -> None:
    module, _, _ = built("ReOrg", [1], [])
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert module(image)[0, :, 0, 0].tolist() == [0, 4, 1, 5]  # down first, then right


def test_orepa_has_an_identity_branch_only_if_the_shape_stays() -> None:
    same, other = built("RepConv_OREPA", [8], [8, 3, 1])[0], built("RepConv_OREPA", [8], [8, 3, 2])[0]
    assert same.rbr_identity is not None
    assert other.rbr_identity is None


@pytest.mark.parametrize(
    ("name", "channels", "args", "message"),
    [
        ("RepConv", [8], [8, 5], "kernel must be 3"),
        ("RepConv_OREPA", [8], [8, 3, 1, 1, 2], "takes 1 to 4 arguments"),
        ("Shortcut", [8, 16], [1], "equal channels"),
        ("Shortcut", [8], [1], "two or more"),
        ("SP", [8], [4], "must be odd"),
        ("SPP", [8], [8, 5], "must be a list"),
        ("DownC", [8], [8, 0], "factor"),
        ("ResNetStage", [8], [8, 0], "stride"),
        ("PyramidLevel", [8, 8, 8], [], "one or two source layers"),
        ("DepthwiseConv", [8], [8, 3, 0], "stride"),
        ("DepthwiseConv", [8], [8, 3, 1, 1], "takes 1 to 3 arguments"),
        ("DepthwiseC3", [8], [], "takes 1 to 3 arguments"),
        ("DecoupledDetect", [8, 8], [0, 16], "nc"),
        ("ZeroPad2d", [8], [[0, 1]], "left, right, top, bottom"),
        ("MaxPool2d", [8], [2, 2, 5], "padding"),
        ("ReOrg", [8], [2], "takes 0 arguments"),
        ("Conv", [8], [8, 1, 1, None, 1, "Softmax"], "unknown activation"),
        ("IAuxDetect", [8, 8], [4, [[1, 2], [3, 4]]], "anchors for 2 scales"),
    ],
)
def test_invalid_arguments_are_refused(name: str, channels: list[int], args: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(name, channels, args)
