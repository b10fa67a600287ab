"""OpenVINO: Intel's runtime; the fastest here on CPUs. A folder with the network (.xml), its weights (.bin)."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export import onnx
from yolo_cli.export.metadata import Metadata, from_text
from yolo_cli.export.program import IMAGES
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request, require
from yolo_cli.export.runtime import FileRuntime

EXTRA = "openvino"
SECTION = "yolo_cli"  # of the runtime information within the .xml


def write(request: Request, path: Path) -> None:
    """Write the folder, by way of the ONNX graph. Raises UserError where a package is missing."""
    openvino = require("openvino", EXTRA)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "model.onnx")
        source.write_bytes(onnx.build(request).SerializeToString())
        model = openvino.convert_model(str(source))
        if request.metadata.int8:
            model = _quantised(request, model)
        for key, text in request.metadata.to_text().items():
            model.set_rt_info(text, [SECTION, key])
        path.mkdir()
        openvino.save_model(model, str(path / "model.xml"), compress_to_fp16=request.metadata.half)


def _quantised(request: Request, model: Any) -> Any:
    nncf = require("nncf", EXTRA)
    assert request.calibration is not None
    images = [{IMAGES: batch.cpu().numpy()} for batch in request.calibration()]
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=["Multiply", "Subtract", "Sigmoid", "Add", "Power"], validate=False),
        )


def open_file(path: Path, device: torch.device) -> "OpenVinoRuntime":
    """A folder, or the .xml within it, ready to run. Raises UserError for one that is damaged or written elsewhere."""
    return OpenVinoRuntime(path, device)


class OpenVinoRuntime(FileRuntime):
    """Runs on OpenVINO's CPU plugin."""

    def __init__(self, path: Path, device: torch.device) -> None:
        openvino = require("openvino", EXTRA)
        file = path if path.suffix == ".xml" else path / "model.xml"
        if not file.is_file() or not file.with_suffix(".bin").is_file():
            raise UserError("holds no model.xml with model.bin", where=path, fix="export it again")
        core = openvino.Core()
        try:
            with quiet(native=True):  # it tries other readers on a damaged file, which tell of it line by line
                model = core.read_model(str(file))
            texts = _texts(model)
            # Single precision is meant as such: on some processors the plugin would take bfloat16 by itself.
            options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1][:120]
            raise UserError(f"not a readable OpenVINO model ({detail})", where=path) from None
        super().__init__(from_text(texts, where=path), path)
        self._compiled, self._device = compiled, device

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The network's output."""
        request = self._compiled.create_infer_request()  # its own, since several threads may run the model
        request.infer({IMAGES: np.ascontiguousarray(images.cpu().numpy())})
        return torch.from_numpy(request.get_output_tensor(0).data.copy()).to(self._device)


def _texts(model: Any) -> dict[str, str]:
    texts = {}
    for key in Metadata.__dataclass_fields__:
        if model.has_rt_info([SECTION, key]):
            texts[key] = model.get_rt_info([SECTION, key]).astype(str)
    return texts
