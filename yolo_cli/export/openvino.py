"""OpenVINO: Intel's runtime. A folder with the network (.xml) and its weights (.bin)."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export import onnx
from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.metadata import Metadata, from_text
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.wrappers import IMAGES

EXTRA = "openvino"
SECTION = "yolo_cli"  # of the runtime information in the .xml


def write(spec: ExportSpec, path: Path) -> None:
    """Write the folder, converted from the ONNX graph."""
    openvino = import_optional("openvino", EXTRA)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "model.onnx")
        source.write_bytes(onnx.build(spec).SerializeToString())
        model = openvino.convert_model(str(source))
        if spec.metadata.int8:
            model = _quantize(spec, model)
        for key, text in spec.metadata.to_text().items():
            model.set_rt_info(text, [SECTION, key])
        path.mkdir()
        openvino.save_model(model, str(path / "model.xml"), compress_to_fp16=spec.metadata.half)


def _quantize(spec: ExportSpec, model: Any) -> Any:
    """Convolutions in INT8, the decoding of boxes in single precision."""
    nncf = import_optional("nncf", EXTRA)
    images = [{IMAGES: batch.cpu().numpy()} for batch in spec.calibration_batches()]
    with silence():
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=["Multiply", "Subtract", "Sigmoid", "Add", "Power"], validate=False),
        )


class OpenVINORuntime(FileRuntime):
    """Runs on OpenVINO's CPU plugin. `path` is the folder, or the .xml in it."""

    def __init__(self, path: Path, device: torch.device) -> None:
        openvino = import_optional("openvino", EXTRA)
        file = path if path.suffix == ".xml" else path / "model.xml"
        if not file.is_file() or not file.with_suffix(".bin").is_file():
            raise UserError("holds no model.xml with model.bin", where=path, fix="export it again")
        core = openvino.Core()
        try:
            with silence(native=True):  # on a damaged file it tries other readers, which print their failures
                model = core.read_model(str(file))
            texts = _metadata_texts(model)
            # On processors with bfloat16 the plugin would use it unless single precision is requested.
            options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1][:120]  # the lines before are positions in OpenVINO's source
            raise UserError(f"not a readable OpenVINO model ({detail})", where=path) from None
        super().__init__(from_text(texts, where=path), path)
        self._compiled, self._device = compiled, device

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        request = self._compiled.create_infer_request()  # one per call, because several threads may run the model
        request.infer({IMAGES: np.ascontiguousarray(images.cpu().numpy())})
        return torch.from_numpy(request.get_output_tensor(0).data.copy()).to(self._device)


def _metadata_texts(model: Any) -> dict[str, str]:
    texts = {}
    for key in Metadata.__dataclass_fields__:
        if model.has_rt_info([SECTION, key]):
            texts[key] = model.get_rt_info([SECTION, key]).astype(str)
    return texts
