"""ONNX: the exchange format; run by ONNX Runtime.

Written by torch's exporter of captured programs (`dynamo=True`), not by the older one of traces: at equal outputs its
graphs have a third fewer nodes, run faster with dynamic sizes (docs/export.md has the figures), and it is the one that
torch develops.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import from_text
from yolo_cli.export.onnx_nms import append_suppression
from yolo_cli.export.program import IMAGES, ROWS
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request, require
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.io.atomic import write_atomically

EXTRA = "onnx"
OLDEST_OPSET = 17
EXPORTER_OPSET = 18  # what torch's exporter writes; others are converted from it


def write(request: Request, path: Path) -> None:
    """Write the model as one file. Raises UserError where a package is missing or the opset cannot be had."""
    onnx = require("onnx", EXTRA)
    proto = build(request)
    if request.metadata.int8:
        proto = _quantised(request, proto)
    for key, text in request.metadata.to_text().items():
        proto.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(proto)
    write_atomically(path, proto.SerializeToString(), what="ONNX file")


def build(request: Request) -> Any:
    """The model as an ONNX graph, with suppression where it is asked for; neither quantised nor saved."""
    onnx = require("onnx", EXTRA)
    require("onnxscript", EXTRA)
    proto = _captured(request)
    if request.simplify:
        proto = require("onnxslim", EXTRA).slim(proto)
    if request.opset != _opset(proto):
        try:
            proto = onnx.version_converter.convert_version(proto, request.opset)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[0][:120]
            where, fix = f"--opset {request.opset}", f"leave it out: {EXPORTER_OPSET} is the exporter's own"
            raise UserError(f"the graph has no such form ({detail})", where=where, fix=fix) from None
    if request.metadata.nms is not None:
        append_suppression(onnx, proto, request.metadata.nms, len(request.metadata.names))
    return proto


def _opset(proto: Any) -> int:
    return next(int(item.version) for item in proto.opset_import if item.domain in ("", "ai.onnx"))


def _captured(request: Request) -> Any:
    dynamic = None
    example = request.example()
    if request.metadata.dynamic:
        free = torch.export.Dim.DYNAMIC
        dynamic = {IMAGES: {0: free, 2: free, 3: free}}
        # Sides and batch that are equal, or 1, would be taken for the same number, or for a constant.
        height, width = request.metadata.img
        example = torch.rand(2, 3, height, width + request.metadata.stride, device=request.device)
    with quiet(), torch.no_grad():
        exported = torch.onnx.export(
            request.program.eval(),
            (example,),
            dynamo=True,
            opset_version=EXPORTER_OPSET,
            input_names=[IMAGES],
            output_names=[ROWS],
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto


def _quantised(request: Request, proto: Any) -> Any:
    """Convolutions in 8 bits, activations with a zero point, weights by channel; decoding stays in single precision."""
    onnx = require("onnx", EXTRA)
    quantization = require("onnxruntime.quantization", EXTRA)
    assert request.calibration is not None
    images = request.calibration()

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(images, None)
            return None if batch is None else {IMAGES: batch.cpu().numpy()}

    shaped = onnx.shape_inference.infer_shapes(proto)
    with quiet(), _scratch(shaped) as (source, target):
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Maps of the head hold box offsets and logits side by side, which no one scale of 8 bits serves.
            nodes_to_exclude=_last_convolutions(proto, len(request.model.strides)),
        )
        return onnx.load(target)


def _last_convolutions(proto: Any, count: int) -> list[str]:
    """Names of the head's convolutions: the last ones of the graph."""
    return [node.name for node in proto.graph.node if node.op_type == "Conv"][-count:]


@contextlib.contextmanager
def _scratch(proto: Any) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder, "float.onnx")), str(Path(folder, "int8.onnx"))
        Path(source).write_bytes(proto.SerializeToString())
        yield source, target


def open_file(path: Path, device: torch.device) -> "OnnxRuntime":
    """A file ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return OnnxRuntime(path, device)


class OnnxRuntime(FileRuntime):
    """Runs on ONNX Runtime."""

    def __init__(self, path: Path, device: torch.device) -> None:
        runtime = require("onnxruntime", EXTRA)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        try:
            session = runtime.InferenceSession(str(path), options, providers=[*providers, "CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class but this
            detail = str(error).strip().splitlines()[0][:120]
            raise UserError(f"not a readable ONNX file ({detail})", where=path) from None
        super().__init__(from_text(session.get_modelmeta().custom_metadata_map, where=path), path)
        self._session, self._device = session, device

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The graph's output."""
        (output,) = self._session.run(None, {IMAGES: np.ascontiguousarray(images.cpu().numpy())})
        return torch.from_numpy(output).to(self._device)
