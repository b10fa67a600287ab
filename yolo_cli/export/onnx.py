"""ONNX: the exchange format; run by ONNX Runtime.

Written by torch's exporter of captured programs (`dynamo=True`), not by the older one of traces: at equal outputs its
graphs have a third fewer nodes, run faster with dynamic sizes (docs/export.md has the figures), and torch develops it
further.
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

from yolo_cli.errors import UserError, first_line
from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.metadata import from_text
from yolo_cli.export.onnx_nms import append_nms
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.wrappers import IMAGES, ROWS
from yolo_cli.io.atomic import write_atomically

EXTRA = "onnx"
EXPORTER_OPSET = 18  # written by torch's exporter; other opsets are converted from it


def write(spec: ExportSpec, path: Path) -> None:
    """Write one file. Raises UserError where the graph cannot be converted to the opset."""
    onnx = import_optional("onnx", EXTRA)
    proto = build(spec)
    if spec.metadata.int8:
        proto = _quantize(spec, proto)
    for key, text in spec.metadata.to_text().items():
        proto.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(proto)
    write_atomically(path, proto.SerializeToString(), what="ONNX file")


def build(spec: ExportSpec) -> Any:
    """The model as an ONNX graph, with NMS where it is requested; not quantized."""
    onnx = import_optional("onnx", EXTRA)
    import_optional("onnxscript", EXTRA)
    proto = _capture(spec)
    if spec.simplify:
        proto = import_optional("onnxslim", EXTRA).slim(proto)
    if spec.opset != _opset(proto):
        try:
            proto = onnx.version_converter.convert_version(proto, spec.opset)
        except RuntimeError as error:
            where, fix = f"--opset {spec.opset}", f"leave it out; the exporter itself writes opset {EXPORTER_OPSET}"
            raise UserError(f"the graph cannot be converted ({first_line(error)})", where=where, fix=fix) from None
    if spec.metadata.nms is not None:
        append_nms(onnx, proto, spec.metadata.nms, len(spec.metadata.names))
    return proto


def _opset(proto: Any) -> int:
    return next(int(item.version) for item in proto.opset_import if item.domain in ("", "ai.onnx"))


def _capture(spec: ExportSpec) -> Any:
    dynamic = spec.metadata.dynamic
    with silence(), torch.no_grad():
        exported = torch.onnx.export(
            spec.module(),
            (spec.dynamic_example() if dynamic else spec.example(),),
            dynamo=True,
            opset_version=EXPORTER_OPSET,
            input_names=[IMAGES],
            output_names=[ROWS],
            dynamic_shapes=spec.dynamic_shapes() if dynamic else None,
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto


def _quantize(spec: ExportSpec, proto: Any) -> Any:
    """Convolutions in INT8, with asymmetric activations and per-channel weights; the decoding stays in float32."""
    onnx = import_optional("onnx", EXTRA)
    quantization = import_optional("onnxruntime.quantization", EXTRA)
    images = spec.calibration_batches()

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(images, None)
            return None if batch is None else {IMAGES: batch.cpu().numpy()}

    shaped = onnx.shape_inference.infer_shapes(proto)
    with silence(), _scratch(shaped) as (source, target):
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_sensitive_convolutions(proto),
        )
        return onnx.load(target)


def _sensitive_convolutions(proto: Any) -> list[str]:
    """Names of the convolutions that stay in float32, because one INT8 scale does not fit all their channels.

    Those are the last ones, whose maps hold box offsets beside logits, the depthwise ones and the first one. With the
    depthwise ones in INT8, yolox-nano had AP 0.08 instead of 0.32.
    """
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    depthwise = [node.name for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    return [convolutions[0].name, *depthwise, *_last_convolutions(proto)]


def _last_convolutions(proto: Any) -> list[str]:
    """Names of the convolutions that no other one follows: those of the head that make the predictions."""
    producers = {output: node for node in proto.graph.node for output in node.output}
    found, seen = list[str](), set[str]()
    waiting = [output.name for output in proto.graph.output]
    while waiting:
        node = producers.get(name := waiting.pop())
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            found.append(node.name)
        else:
            waiting += node.input
    return found


@contextlib.contextmanager
def _scratch(proto: Any) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder, "float.onnx")), str(Path(folder, "int8.onnx"))
        Path(source).write_bytes(proto.SerializeToString())
        yield source, target


class ONNXRuntime(FileRuntime):
    """Runs on ONNX Runtime."""

    def __init__(self, path: Path, device: torch.device) -> None:
        runtime = import_optional("onnxruntime", EXTRA)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        preferred = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [name for name in preferred if name in runtime.get_available_providers()]
        try:
            session = runtime.InferenceSession(str(path), options, providers=[*providers, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise UserError(f"not a readable ONNX file ({first_line(error)})", where=path) from None
        super().__init__(from_text(session.get_modelmeta().custom_metadata_map, where=path), path)
        self._session, self._device = session, device

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        (output,) = self._session.run(None, {IMAGES: np.ascontiguousarray(images.cpu().numpy())})
        return torch.from_numpy(output).to(self._device)
