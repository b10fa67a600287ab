"""ExecuTorch: torch's runtime for phones; on CPUs through XNNPACK.

A .pte file has no room for metadata, so `model.pte` is described by `model.pte.json` beside it.
"""

import threading
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import from_json
from yolo_cli.export.pt2 import capture
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request, require
from yolo_cli.export.runtime import FileRuntime
from yolo_cli.io.atomic import write_atomically

EXTRA = "executorch"


def write(request: Request, path: Path) -> None:
    """Capture, lower to XNNPACK, save. Raises UserError where the package is missing."""
    if description(path).exists():
        raise UserError("exists already", where=description(path), fix="give another --name, or remove it first")
    with quiet(native=True):
        exir = require("executorch.exir", EXTRA)
        backend = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
        program = exir.to_edge_transform_and_lower(capture(request), partitioner=[backend.XnnpackPartitioner()])
        packed = program.to_executorch().buffer
    write_atomically(path, packed, what="ExecuTorch program")
    write_atomically(description(path), request.metadata.to_json().encode(), what="ExecuTorch description")


def description(path: Path) -> Path:
    """The file that describes a program."""
    return path.with_name(path.name + ".json")


def open_file(path: Path, device: torch.device) -> "ExecuTorchRuntime":
    """A program ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return ExecuTorchRuntime(path, device)


class ExecuTorchRuntime(FileRuntime):
    """Runs on ExecuTorch."""

    def __init__(self, path: Path, device: torch.device) -> None:
        if not description(path).is_file():
            raise UserError(f"lacks {description(path).name} beside it", where=path, fix="export it again")
        super().__init__(from_json(description(path).read_text(encoding="utf-8", errors="replace"), where=path), path)
        self._turn = threading.Lock()  # one program has one memory, so that threads take turns
        with quiet(native=True):
            runtime = require("executorch.runtime", EXTRA)
            try:
                self._program = runtime.Runtime.get().load_program(str(path))
                self._method = self._program.load_method("forward")
            except (RuntimeError, ValueError) as error:
                detail = (str(error).strip().splitlines() or [""])[0][:120]
                raise UserError(f"not a readable ExecuTorch program ({detail})", where=path) from None

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The program's output."""
        with self._turn:
            (output,) = self._method.execute([images.cpu().float().contiguous()])
            return output.clone()
