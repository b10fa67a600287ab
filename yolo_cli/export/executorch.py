"""ExecuTorch: torch's runtime for phones; on CPUs through XNNPACK.

A .pte file has no room for metadata, so that of `model.pte` is in `model.pte.json` beside it.
"""

import threading
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError, first_line
from yolo_cli.export.dependencies import import_optional
from yolo_cli.export.metadata import from_json
from yolo_cli.export.pt2 import capture
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.io.atomic import write_atomically

EXTRA = "executorch"


def write(spec: ExportSpec, path: Path) -> None:
    """Capture, lower to XNNPACK, save the program and its metadata."""
    if metadata_path(path).exists():
        raise UserError("exists already", where=metadata_path(path), fix="give another --name, or remove it first")
    with silence(native=True):
        exir = import_optional("executorch.exir", EXTRA)
        backend = import_optional("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
        program = exir.to_edge_transform_and_lower(capture(spec), partitioner=[backend.XnnpackPartitioner()])
        packed = program.to_executorch().buffer
    write_atomically(path, packed, what="ExecuTorch program")
    write_atomically(metadata_path(path), spec.metadata.to_json().encode(), what="ExecuTorch metadata")


def metadata_path(path: Path) -> Path:
    """The file with the metadata of a program."""
    return path.with_name(path.name + ".json")


class ExecuTorchRuntime(FileRuntime):
    def __init__(self, path: Path, device: torch.device) -> None:
        if not metadata_path(path).is_file():
            raise UserError(f"has no {metadata_path(path).name} beside it", where=path, fix="export it again")
        text = metadata_path(path).read_text(encoding="utf-8", errors="replace")
        super().__init__(from_json(text, where=path), path)
        self._lock = threading.Lock()  # a program has one memory, which threads must not share
        with silence(native=True):
            runtime = import_optional("executorch.runtime", EXTRA)
            try:
                self._program = runtime.Runtime.get().load_program(str(path))
                self._method = self._program.load_method("forward")
            except (RuntimeError, ValueError) as error:
                raise UserError(f"not a readable ExecuTorch program ({first_line(error)})", where=path) from None

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        with self._lock:
            (output,) = self._method.execute([images.cpu().float().contiguous()])
            return output.clone()
