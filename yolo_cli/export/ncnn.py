"""ncnn: for phones and small boards. A folder with the network (.param), its weights (.bin) and yolo_cli.json.

ncnn has no tensors of five dimensions. So the outputs of the network are the head's maps, one per scale, with
anchors × (5 + classes) channels, and the program that runs it decodes the boxes. yolo_cli.json holds what is needed for
that: the architecture with its anchors, and the strides.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.metadata import from_json
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.model.architecture import Anchors, from_mapping
from yolo_cli.model.build import DetectionModel

EXTRA = "ncnn"
FILES = ("model.ncnn.param", "model.ncnn.bin")
METADATA = "yolo_cli.json"


class WithoutDecoding(nn.Module):
    """A network whose outputs are the head's maps."""

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model
        model.head.__dict__["forward"] = model.head.maps  # in this copy only: leaves out the split into anchors

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images))


def write(spec: ExportSpec, path: Path) -> None:
    """Trace the network, convert it with pnnx, write the folder. Raises UserError where pnnx fails."""
    program = import_optional("pnnx", EXTRA).EXEC_PATH
    model = spec.model
    anchors: Anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    metadata = json.loads(spec.metadata.to_json())
    metadata |= {"network": model.architecture.with_anchors(anchors).to_mapping(), "strides": list(model.strides)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), silence():
        example = spec.example()
        traced = torch.jit.trace(WithoutDecoding(model).eval(), example, check_trace=False)
        torch.jit.save(traced, str(Path(folder, "model.pt")))
        shape = ",".join(map(str, example.shape))
        command = [program, "model.pt", f"inputshape=[{shape}]f32", f"fp16={int(spec.metadata.half)}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        written = [Path(folder, name) for name in FILES]
        if done.returncode or not all(file.is_file() for file in written):
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"pnnx could not convert the network ({last[0][:120]})", where="--include ncnn")
        # Lines of the .param begin with an operator; a dot in its name means that it is torch's, not ncnn's.
        operators = {line.split()[0] for line in written[0].read_text().splitlines() if line.strip()}
        if unknown := sorted(operator for operator in operators if "." in operator):
            raise UserError(f"ncnn has no operator for {', '.join(unknown)}", where="--include ncnn")
        path.mkdir()
        for file in written:
            (path / file.name).write_bytes(file.read_bytes())
    (path / METADATA).write_text(json.dumps(metadata, ensure_ascii=False, indent=1), encoding="utf-8")


class NCNNRuntime(FileRuntime):
    """Runs images on ncnn one by one, and decodes the boxes in PyTorch."""

    def __init__(self, path: Path, device: torch.device) -> None:
        ncnn = import_optional("ncnn", EXTRA)
        text = _text(path / METADATA)
        super().__init__(from_json(text, where=path / METADATA), path)
        network = json.loads(text).get("network")
        if not isinstance(network, dict):
            raise UserError("does not contain the network's architecture", where=path / METADATA, fix="export it again")
        with torch.device("cpu"):
            # Only its head is used, which decodes the maps.
            self._head = DetectionModel(from_mapping(network, name="ncnn", where=path / METADATA)).head
        self._net: Any = ncnn.Net()
        half = self.metadata.half
        options = self._net.opt
        options.use_fp16_storage = options.use_fp16_packed = options.use_fp16_arithmetic = half
        options.num_threads = torch.get_num_threads()
        with silence(native=True):
            failed = self._net.load_param(str(path / FILES[0])) or self._net.load_model(str(path / FILES[1]))
        if failed:
            raise UserError(f"holds no valid {' and '.join(FILES)}", where=path, fix="export it again")
        self._mat = ncnn.Mat

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        maps = [self._maps(image) for image in images.cpu().numpy()]
        raw = [self._head.split_anchors(torch.from_numpy(np.stack(scale))) for scale in zip(*maps, strict=True)]
        return self._head.decode(raw)

    def _maps(self, image: Float[np.ndarray, "3 h w"]) -> list[np.ndarray]:
        extractor, pixels = self._net.create_extractor(), np.ascontiguousarray(image)
        extractor.input(self._net.input_names()[0], self._mat(pixels))  # a view: `pixels` must outlive it
        return [np.array(extractor.extract(name)[1]) for name in self._net.output_names()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError("is missing, or not a text file", where=path, fix="export it again") from None
