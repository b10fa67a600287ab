"""TensorRT: NVIDIA's runtime. An engine is built from the ONNX graph, on the GPU that will run it.

An engine file begins with its metadata: the length in four bytes (little-endian), then JSON of that length.
"""

import struct
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export import onnx
from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.metadata import Metadata, from_json
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.wrappers import IMAGES
from yolo_cli.io.atomic import write_atomically

EXTRA = "tensorrt"
MAX_METADATA = 1 << 24  # bytes


def missing() -> str:
    """What is missing on this machine; "" for nothing."""
    return "" if torch.cuda.is_available() else "an engine is built on the GPU that runs it, and there is none"


def write(spec: ExportSpec, path: Path) -> None:
    """Parse the ONNX graph and build the engine. Raises UserError where that fails."""
    trt = import_optional("tensorrt", EXTRA)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = parse(trt, logger, builder, onnx.build(spec).SerializeToString())
    config = builder.create_builder_config()
    if spec.metadata.dynamic:
        config.add_optimization_profile(_profile(builder, spec.metadata))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError("TensorRT could not build the engine", where="--include tensorrt")
    metadata = spec.metadata.to_json().encode()
    write_atomically(path, struct.pack("<I", len(metadata)) + metadata + bytes(engine), what="TensorRT engine")


def parse(trt: Any, logger: Any, builder: Any, graph: bytes) -> Any:
    """The network of an ONNX graph. Raises UserError where TensorRT cannot read it."""
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        detail = str(parser.get_error(0)).splitlines()[0][:160] if parser.num_errors else ""
        raise UserError(f"TensorRT cannot read the graph ({detail})", where="--include tensorrt")
    return network


def _profile(builder: Any, metadata: Metadata) -> Any:
    """Sizes from one stride to the file's own, and batches up to its own; optimized for the largest."""
    height, width = metadata.img
    profile, largest = builder.create_optimization_profile(), (metadata.batch, 3, height, width)
    profile.set_shape(IMAGES, (1, 3, metadata.stride, metadata.stride), largest, largest)
    return profile


class TensorRTRuntime(FileRuntime):
    """Runs on the current CUDA stream. An engine fits only the GPU model and the TensorRT version it was built for."""

    def __init__(self, path: Path, device: torch.device) -> None:
        trt = import_optional("tensorrt", EXTRA)
        data = path.read_bytes()
        length = struct.unpack("<I", data[:4])[0] if len(data) > 4 else MAX_METADATA + 1
        if length > min(len(data), MAX_METADATA):
            raise UserError("not an engine that `yolo export` wrote", where=path)
        super().__init__(from_json(data[4 : 4 + length].decode("utf-8", "replace"), where=path), path)
        if device.type != "cuda":
            raise UserError("an engine runs on the GPU it was built on", where=path, fix="give --device 0 there")
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(data[4 + length :])
        if self._engine is None:
            raise UserError("made for another GPU or another TensorRT", where=path, fix="export it again here")
        self._context, self._device = self._engine.create_execution_context(), device
        self._output = next(
            name for name in map(self._engine.get_tensor_name, range(self._engine.num_io_tensors)) if name != IMAGES
        )

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        given = images.to(self._device).float().contiguous()
        self._context.set_input_shape(IMAGES, tuple(given.shape))
        output = torch.empty(tuple(self._context.get_tensor_shape(self._output)), device=self._device)
        self._context.set_tensor_address(IMAGES, given.data_ptr())
        self._context.set_tensor_address(self._output, output.data_ptr())
        stream = torch.cuda.current_stream(self._device)
        self._context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return output
