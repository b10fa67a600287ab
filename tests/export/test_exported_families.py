"""Exported files of every model family give the same predictions as PyTorch, with untrained weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_cli.export.formats import FORMATS, missing_requirement
from yolo_cli.export.metadata import Metadata
from yolo_cli.export.spec import ExportSpec
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.weights.networks import find_network

CPU = torch.device("cpu")
FAMILIES = ["yolov5s6", "yolov3-tiny", "yolov7-tiny", "yolov5s-v3.1", "yolox-nano", "yolov5n-tal", "darknet"]


@pytest.mark.parametrize("name", ["torchscript", *(pytest.param(n, marks=pytest.mark.slow) for n in ("onnx", "ncnn"))])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_equal_those_of_pytorch(tmp_path: Path, reference: Path, family: str, name: str) -> None:
    if missing := missing_requirement(name):
        pytest.skip(missing)
    torch.manual_seed(1)
    cfg = str(reference / "weights/yolo-fastest-1.1.cfg") if family == "darknet" else family
    model = DetectionModel(find_network(cfg)).eval()
    for key, value in model.state_dict().items():
        if "running_var" in key:
            value.uniform_(0.5, 1.5)
    fused = fuse(model)
    side = 2 * fused.stride
    metadata = Metadata(fused.names, fused.stride, (side, 2 * side), 1)
    images = torch.rand(1, 3, side, 2 * side)
    with torch.inference_mode():
        wanted = fused.decode(fused(images))
    path = FORMATS[name].path(tmp_path / "m.pt")
    FORMATS[name].write(ExportSpec(fused, metadata, 18, False, CPU), path)
    opener: Any = FORMATS[name].open
    with torch.inference_mode():
        (found,) = opener(path, CPU).predict(images)
    torch.testing.assert_close(found, wanted[0], rtol=1e-3, atol=1e-2)
