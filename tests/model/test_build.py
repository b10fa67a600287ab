import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import formula
from torch.utils.flop_counter import FlopCounterMode

from yolo_cli.io import assets
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.model.build import DetectionModel, count_parameters, gflops, layer_rows
from yolo_cli.model.fuse import fuse
from yolo_cli.model.transfer import transfer

TABLES = {
    "yolov3": ("yolov3", "yolov3-spp", "yolov3-tiny"),
    "yolov5-v3.1": ("yolov5s", "yolov5m", "yolov5l", "yolov5x"),
    "yolov5-v7.0": tuple(f"yolov5{size}" for size in ("n", "s", "m", "l", "x", "n6", "s6", "m6", "l6", "x6", "-p2")),
    "yolov7": tuple(
        f"yolov7{size}"
        for size in ("", "x", "-tiny", "-w6", "-e6", "-d6", "-e6e", "-deploy", "-tiny-deploy", "-w6-deploy")
    ),
}
FORWARD = {
    "yolov3": ("yolov3", "yolov3-tiny"),
    "yolov5-v3.1": ("yolov5s", "yolov5m"),
    "yolov5-v7.0": ("yolov5n", "yolov5s", "yolov5m", "yolov5n6"),
    "yolov7": ("yolov7", "yolov7-tiny", "yolov7-tiny-deploy"),
}
SLOW_FORWARD = {"yolov7": ("yolov7-w6",)}


def cases(families: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(family, name) for family, names in families.items() for name in names]


def shipped(family: str, name: str) -> Architecture:
    """Two releases have models of the same names; our files have the release as a suffix."""
    return find_architecture(f"{name}-v3.1" if family == "yolov5-v3.1" else name)


@pytest.mark.parametrize(("family", "name"), cases(TABLES))
def test_layers_equal_the_published_table(reference_file: Callable[[str], Path], family: str, name: str) -> None:
    text = reference_file(f"reference/tables/{family}/{name}.txt").read_text()
    rows = list(layer_rows(shipped(family, name)))
    assert sum(row[3] for row in rows) == int(text.split()[1])
    lines = [line for line in text.splitlines() if re.match(r"\s*\d+\s*(-?\d+\s|\[)", line)]
    for row, line in zip(rows, lines, strict=True):
        found = re.match(r"\s*(\d+)\s*(-?\d+|\[.*?\])\s+(\d+)\s+(\d+)\s+(\w+)\s+(.*)", line)
        assert found is not None
        index, source, repeats, parameters, block, args = found.groups()
        assert row[:5] == (int(index), source, int(repeats), int(parameters), block)
        # the table has placeholders for anchors that are fitted before training
        assert row[5] == args or (name == "yolov5-p2" and block == "Detect")


@pytest.mark.parametrize(
    ("family", "name"),
    [*cases(FORWARD), *(pytest.param(*case, marks=pytest.mark.slow) for case in cases(SLOW_FORWARD))],
)
def test_outputs_equal_the_published_ones(reference_file: Callable[[str], Path], family: str, name: str) -> None:
    facts = json.loads(reference_file(f"reference/forward/{family}/{name}.json").read_text())
    stored = np.load(reference_file(f"reference/forward/{family}/{name}.npz"))
    model = DetectionModel(shipped(family, name)).eval()
    state = model.state_dict()
    assert count_parameters(model) == facts["params"]
    assert list(model.strides) == facts["stride"]
    assert [[key, list(value.shape)] for key, value in state.items()] == facts["state"]
    for key, value in state.items():
        if "anchors" not in key and "num_batches" not in key:
            value.copy_(torch.from_numpy(formula.fill(key, value.shape)))
    image = torch.from_numpy(formula.image(*facts["input_hw"]))
    with torch.inference_mode():
        raw = model(image)
        decoded = model.decode(raw)
    for scale, values in enumerate(raw):
        theirs = stored[f"raw{scale}"]
        np.testing.assert_allclose(values.numpy(), theirs, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_allclose(decoded.numpy(), stored["decoded"], atol=1e-2, rtol=1e-3)
    if "fused_decoded" in stored:  # the fusing of the others is tested below for every shipped file
        slim = fuse(model)
        with torch.inference_mode():
            fused = slim.decode(slim(image))
        np.testing.assert_allclose(fused.numpy(), decoded.numpy(), atol=1e-2, rtol=1e-4)
        np.testing.assert_allclose(fused.numpy(), stored["fused_decoded"], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("name", assets.names("models"))
def test_every_shipped_file_builds_runs_and_fuses(name: str) -> None:
    architecture = find_architecture(name).with_classes(3)
    torch.manual_seed(0)
    # an eighth of the width saves time; the test against the tables covers the full widths
    model = DetectionModel(replace(architecture, width=architecture.width / 8)).train()
    side = 2 * model.stride
    with torch.no_grad():
        trained = model(torch.rand(2, 3, side, side))  # moves the running statistics away from 0 and 1
    model.eval()
    slim = fuse(model)
    image = torch.rand(2, 3, side, 2 * side)
    with torch.inference_mode():
        raw, fused = model(image), slim(image)
    assert [tuple(m.shape[2:4]) for m in raw] == [(side // s, 2 * side // s) for s in model.strides]
    assert len(trained) == len(raw) * (2 if model.has_auxiliary else 1)
    assert model.decode(raw).shape == (2, sum(m[0, ..., 0].numel() for m in raw), 8)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in slim.modules())
    for a, b in zip(raw, fused, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_fuse_does_not_change_the_model() -> None:
    model = DetectionModel(find_architecture("n").with_classes(3)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    slim = fuse(model)
    assert count_parameters(slim) < count_parameters(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in slim.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_fused_model_equals_the_model_with_trained_statistics() -> None:
    torch.manual_seed(0)
    model = DetectionModel(find_architecture("n").with_classes(3)).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, 3, 64, 64))  # moves the running statistics away from 0 and 1
    model.eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        plain, slim = model(image), fuse(model)(image)
    for a, b in zip(plain, slim, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_anchors_in_pixels_equal_those_of_the_file() -> None:
    architecture = find_architecture("s")
    model = DetectionModel(architecture)
    assert isinstance(architecture.anchors, tuple)
    np.testing.assert_allclose(model.anchors_in_pixels(), architecture.anchors, rtol=1e-6)


def test_bias_starts_from_a_prior_of_few_objects() -> None:
    model = DetectionModel(find_architecture("n").with_classes(4)).eval()
    with torch.inference_mode():
        objectness = model.decode(model(torch.rand(1, 3, 640, 640)))[..., 4]
    assert 1 < objectness.sum() < 200  # about 8 per scale, not half of 25,200 boxes


@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
def test_gflops_equal_those_of_torch(size: tuple[int, int]) -> None:
    model = DetectionModel(find_architecture("n").with_classes(3)).train()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    assert gflops(model, *size) == pytest.approx(counter.get_total_flops() / 1e9)
    assert model.training


def test_transfer_reports_loaded_and_skipped_tensors() -> None:
    theirs = DetectionModel(find_architecture("n").with_classes(80))
    mine = DetectionModel(find_architecture("n").with_classes(3))
    report = transfer(mine, theirs.state_dict())
    skipped = dict(report.skipped)
    assert set(skipped) == {f"model.24.m.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert "255×64×1×1 in the file, 24×64×1×1 in the model" in skipped["model.24.m.0.weight"]
    assert torch.equal(mine.state_dict()["model.0.conv.weight"], theirs.state_dict()["model.0.conv.weight"])
    assert f"{len(report.loaded)} of {len(mine.state_dict())} tensors loaded" in report.summary()
