"""YOLOX: the published parameter counts, names, shapes and outputs; a head without anchors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import formula

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture, from_mapping
from yolo_cli.model.build import DetectionModel, count_parameters
from yolo_cli.model.candidates import decode_candidates
from yolo_cli.model.fuse import fuse
from yolo_cli.weights.pytorch.yolox import our_name

PARAMETERS = {
    "nano": 912_159,
    "tiny": 5_055_855,
    "s": 8_968_255,
    "m": 25_326_495,
    "l": 54_208_895,
    "x": 99_071_455,
}
WITHOUT_ANCHORS: dict[str, Any] = {
    "nc": 2,
    "backbone": [[-1, 1, "Focus", [16, 3]], [-1, 1, "DepthwiseConv", [16, 3, 2]]],
    "head": [[-1, 1, "DepthwiseC3", [16]], [[0, 2], 1, "DecoupledDetect", ["nc", 16, True]]],
}


@pytest.fixture
def small() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(from_mapping(WITHOUT_ANCHORS, name="small", where="small")).eval()


@pytest.mark.parametrize(("size", "parameters"), PARAMETERS.items())
def test_parameter_counts(size: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(DetectionModel(find_architecture(f"yolox-{size}"))) == parameters


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s", "yolox-m"])
def test_outputs_equal_the_published_ones(reference_file: Callable[[str], Path], name: str) -> None:
    facts = json.loads(reference_file(f"reference/forward/yolox/{name}.json").read_text())
    stored = np.load(reference_file(f"reference/forward/yolox/{name}.npz"))
    model = DetectionModel(find_architecture(name)).eval()
    state = model.state_dict()
    assert count_parameters(model) == facts["params"]
    assert list(model.strides) == facts["strides"]
    assert {our_name(key): shape for key, shape in facts["state"]} == {k: list(v.shape) for k, v in state.items()}
    for key, shape in facts["state"]:
        if "num_batches" not in key:
            state[our_name(key)].copy_(torch.from_numpy(formula.fill(key, shape)))
    image = torch.from_numpy(formula.image(*facts["input_hw"]))
    slim = fuse(model)
    with torch.inference_mode():
        raw, fused = model(image), slim.decode(slim(image))
        decoded = model.decode(raw)
    for scale, values in enumerate(raw):
        theirs = stored[f"raw{scale}"]
        np.testing.assert_allclose(values[:, 0].permute(0, 3, 1, 2), theirs, atol=1e-5 * np.abs(theirs).max())
    for ours in (decoded, fused):
        np.testing.assert_allclose(ours, stored["decoded"], atol=1e-5 * np.abs(stored["decoded"]).max())


def test_boxes_are_offsets_and_exponentials_in_strides(small: DetectionModel) -> None:
    raw = [torch.zeros(1, 1, 32 // s, 64 // s, 7) for s in small.strides]  # not square
    raw[1][0, 0, 5, 9, :4] = torch.tensor([0.25, -0.5, 0.0, 1.0])
    rows = small.decode(raw)[0]
    assert len(rows) == sum(y[..., 0].numel() for y in raw)
    expected = torch.tensor([9.25 * 4, 4.5 * 4, 4.0, 4 * np.e])
    torch.testing.assert_close(rows[16 * 32 + 5 * 16 + 9, :4], expected, rtol=1e-6, atol=0)


def test_candidates_are_the_decoded_rows(small: DetectionModel) -> None:
    with torch.inference_mode():
        raw = [torch.randn_like(y) for y in small(torch.rand(2, 3, 32, 64))]
        expected, found = small.decode(raw), decode_candidates(small.head, raw, 0.3)
    for image, rows in enumerate(found):
        torch.testing.assert_close(rows, expected[image][expected[image][:, 4] > 0.3])
        assert 0 < len(rows) < len(expected[image])


def test_objectness_and_classes_start_low(small: DetectionModel) -> None:
    with torch.inference_mode():
        rows = small.decode(small(torch.zeros(1, 3, 32, 32)))
    torch.testing.assert_close(rows[..., 4:].mean(), torch.tensor(0.01), atol=5e-3, rtol=0)


def test_a_wild_size_stays_finite(small: DetectionModel) -> None:
    assert small.head.boxes(torch.full((1, 4), 1e4), torch.ones(1, 2), 0).isfinite().all()


def test_the_architecture_comes_back_from_its_mapping(small: DetectionModel) -> None:
    for architecture in (small.architecture, find_architecture("yolox-nano")):
        mapping = architecture.to_mapping()
        assert "anchors" not in mapping
        assert from_mapping(mapping, name="", where="") == architecture
    assert find_architecture("yolox-nano").loss == "simota"


def test_anchors_are_refused_where_the_head_takes_none(small: DetectionModel) -> None:
    with pytest.raises(UserError, match="has no anchors, but the file gives some"):
        from_mapping({**WITHOUT_ANCHORS, "anchors": 3}, name="small", where="small")
    assert small.anchors_in_pixels() == []
    with pytest.raises(ValueError, match="has no anchors"):
        small.set_anchors(((1.0, 2.0),))


@pytest.mark.parametrize(
    ("args", "message"), [(["nc", 16, 1], "depthwise must be true or false"), (["nc"], "takes 2 to 3 arguments")]
)
def test_arguments_that_make_no_sense_are_refused(args: list[Any], message: str) -> None:
    head = [WITHOUT_ANCHORS["head"][0], [[0, 2], 1, "DecoupledDetect", args]]
    with pytest.raises(UserError, match=message):
        from_mapping({**WITHOUT_ANCHORS, "head": head}, name="small", where="small")
