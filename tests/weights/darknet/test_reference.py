"""Darknet networks against the outputs of an independent reader, and their weights written back byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import formula

from yolo_cli.model.architecture import from_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.weights import pack_weights, read_weights
from yolo_cli.weights.darknet.write_cfg import cfg_text

NETS = ("yolo-fastest-1.1", "yolov3-tiny", "yolov4-tiny", "yolov3")


def reference_rows(model: DetectionModel, raw: list[torch.Tensor], scale: int) -> np.ndarray:
    """One scale's boxes in pixels, objectness, thresholded class scores, in (row, column, anchor) order."""
    emptied = [m if i == scale else m[:, :, :0] for i, m in enumerate(raw)]
    _, a, h, w, o = raw[scale].shape
    rows = model.decode(emptied)[0].view(a, h, w, o).permute(1, 2, 0, 3).reshape(-1, o).clone()
    rows[:, 5:] *= rows[:, 4:5]
    return rows.numpy()


@pytest.mark.parametrize("name", NETS)
def test_outputs_equal_an_independent_readers(
    reference_file: Callable[[str], Path], darknet_file: Any, name: str
) -> None:
    cfg, file = darknet_file(name)
    architecture = read_network(cfg).architecture
    read = read_weights(file, architecture)
    model = DetectionModel(architecture).eval()
    missing, unexpected = model.load_state_dict(read.state, strict=False)
    assert ([key.rpartition(".")[2] for key in missing], unexpected) == (["anchors"], [])
    assert pack_weights(architecture, model.state_dict(), read.header) == file.read_bytes()
    stored = np.load(reference_file(f"reference/darknet/{name}.npz"))
    given = stored["input"] if stored["input"].size else formula.image(64, 96)
    height, width = given.shape[2:]
    nets = (model,) if name == "yolov3" else (model, fuse(model))  # the largest takes seconds and has no other layers
    for net in nets:
        with torch.inference_mode():
            raw = net(torch.from_numpy(given))
            for scale in range(len(raw)):
                mine, theirs = reference_rows(net, raw, scale), stored[f"yolo{scale}"].copy()
                theirs[:, :4] *= [width, height, width, height]
                np.testing.assert_allclose(mine[:, :4], theirs[:, :4], rtol=1e-3, atol=1e-2)
                np.testing.assert_allclose(mine[:, 4], theirs[:, 4], rtol=1e-3, atol=1e-5)
                told = (theirs[:, 5:] > 0) & (mine[:, 5:] > 0.2)  # the reader drops scores up to 0.2
                np.testing.assert_allclose(mine[:, 5:][told], theirs[:, 5:][told], rtol=1e-3)
                assert ((mine[:, 5:] <= 0.201) | (theirs[:, 5:] > 0)).all()
                assert ((theirs[:, 5:] <= 0.201) | (mine[:, 5:] > 0.2)).all()


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_the_same_after_writing_and_reading_it(
    reference_file: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    network = read_network(reference_file(f"weights/{name}.cfg"))
    architecture = network.architecture
    assert from_mapping(architecture.to_mapping(), name="x", where="x") == architecture
    written = tmp_path / f"{name}.cfg"
    written.write_text(cfg_text(architecture, network.height, network.width))
    again = read_network(written)
    assert (again.height, again.width) == (network.height, network.width)
    # routes are written with absolute numbers, so that what is compared is what they lead to
    assert [(la.sources(i), la.block, la.args) for i, la in enumerate(again.architecture.layers)] == [
        (la.sources(i), la.block, la.args) for i, la in enumerate(architecture.layers)
    ]
    assert again.architecture.anchors == architecture.anchors


def test_the_header_of_a_published_file_is_read(reference: Path) -> None:
    cfg = reference / "weights/yolo-fastest-1.1.cfg"
    header = read_weights(cfg.with_suffix(".weights"), read_network(cfg).architecture).header
    assert (header.major, header.minor, header.revision, header.seen) == (0, 2, 5, 14_231_680)
