"""ncnn: for phones and small boards. A folder with the network (.param), its weights (.bin) and yolo_cli.json.

ncnn knows no tensors of five dimensions, so the file gives the head's maps, one a scale, of anchors × (5 + classes)
channels; boxes are decoded by whoever runs it. yolo_cli.json holds what that takes: the architecture with its anchors,
and strides.
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
from yolo_cli.export.metadata import from_json
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request, require
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.model.architecture import Anchors, from_mapping
from yolo_cli.model.build import DetectionModel

EXTRA = "ncnn"
FILES = ("model.ncnn.param", "model.ncnn.bin")
DESCRIPTION = "yolo_cli.json"


class Maps(nn.Module):
    """A network up to its head's maps."""

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model
        model.head.__dict__["forward"] = model.head.maps  # of this copy alone: the split into anchors is left out

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps, scale by scale."""
        return tuple(self.model(images))


def write(request: Request, path: Path) -> None:
    """Trace, have pnnx convert, write the folder. Raises UserError where pnnx fails or is missing."""
    program = require("pnnx", EXTRA).EXEC_PATH
    model = request.model
    anchors: Anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    about = json.loads(request.metadata.to_json())
    about |= {"network": model.architecture.with_anchors(anchors).to_mapping(), "strides": list(model.strides)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), quiet():
        example = request.example()
        traced = torch.jit.trace(Maps(model).eval(), example, check_trace=False)
        torch.jit.save(traced, str(Path(folder, "model.pt")))
        shape = ",".join(map(str, example.shape))
        command = [program, "model.pt", f"inputshape=[{shape}]f32", f"fp16={int(request.metadata.half)}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        written = [Path(folder, name) for name in FILES]
        if done.returncode or not all(file.is_file() for file in written):
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing said"]
            raise UserError(f"pnnx could not convert the network ({last[0][:120]})", where="--include ncnn")
        # Lines of the .param begin with a layer's kind; kinds of torch's own have a point in them.
        kinds = {line.split()[0] for line in written[0].read_text().splitlines() if line.strip()}
        if unknown := sorted(kind for kind in kinds if "." in kind):
            raise UserError(f"ncnn has no operator for {', '.join(unknown)}", where="--include ncnn")
        path.mkdir()
        for file in written:
            (path / file.name).write_bytes(file.read_bytes())
    (path / DESCRIPTION).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")


def open_file(path: Path, device: torch.device) -> "NcnnRuntime":
    """A folder ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return NcnnRuntime(path, device)


class NcnnRuntime(FileRuntime):
    """Runs on ncnn, an image at a time, and decodes."""

    def __init__(self, path: Path, device: torch.device) -> None:
        ncnn = require("ncnn", EXTRA)
        text = _text(path / DESCRIPTION)
        super().__init__(from_json(text, where=path / DESCRIPTION), path)
        network = json.loads(text).get("network")
        if not isinstance(network, dict):
            raise UserError("lacks the network's architecture", where=path / DESCRIPTION, fix="export it again")
        with torch.device("cpu"):
            # Built for its head alone, which knows how maps become boxes.
            self._head = DetectionModel(from_mapping(network, name="ncnn", where=path / DESCRIPTION)).head
        self._net: Any = ncnn.Net()
        half = self.metadata.half
        options = self._net.opt
        options.use_fp16_storage = options.use_fp16_packed = options.use_fp16_arithmetic = half
        options.num_threads = torch.get_num_threads()
        with quiet(native=True):
            failed = self._net.load_param(str(path / FILES[0])) or self._net.load_model(str(path / FILES[1]))
        if failed:
            raise UserError(f"holds no sound {' and '.join(FILES)}", where=path, fix="export it again")
        self._mat = ncnn.Mat

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Decoded rows."""
        maps = [self._maps(image) for image in images.cpu().numpy()]
        raw = [self._head._cells(torch.from_numpy(np.stack(scale))) for scale in zip(*maps, strict=True)]
        return self._head.decode(raw)

    def _maps(self, image: Float[np.ndarray, "3 h w"]) -> list[np.ndarray]:
        extractor, pixels = self._net.create_extractor(), np.ascontiguousarray(image)
        extractor.input(self._net.input_names()[0], self._mat(pixels))  # looks into `pixels`, and does not keep them
        return [np.array(extractor.extract(name)[1]) for name in self._net.output_names()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError("is missing or no text", where=path, fix="export it again") from None
