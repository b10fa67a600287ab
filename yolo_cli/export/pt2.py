"""torch.export: the captured program, for torch's own tools."""

import zipfile
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import from_json
from yolo_cli.export.program import IMAGES
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request
from yolo_cli.export.runtime import FileRuntime

METADATA = "yolo_cli.json"  # an extra file within the archive


def capture(request: Request) -> torch.export.ExportedProgram:
    """The program as torch captures it; with dynamic sizes, for any batch and any multiples of the stride."""
    shapes, example = None, request.example()
    if request.metadata.dynamic:
        free, stride = torch.export.Dim.DYNAMIC, request.metadata.stride
        shapes = {IMAGES: {0: free, 2: free, 3: free}}
        height, width = request.metadata.img
        # A batch of 1 would be taken for a constant, equal sides for one number.
        example = torch.rand(2, 3, height, width + stride, device=request.device)
    with torch.no_grad(), quiet():
        return torch.export.export(request.program.eval(), (example,), dynamic_shapes=shapes)


def write(request: Request, path: Path) -> None:
    """Capture and save."""
    program = capture(request)
    with quiet():
        torch.export.save(program, str(path), extra_files={METADATA: request.metadata.to_json()})


def open_file(path: Path, device: torch.device) -> "ExportedRuntime":
    """A file ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return ExportedRuntime(path, device)


class ExportedRuntime(FileRuntime):
    """Runs the captured operators one by one."""

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA: ""}
        try:
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise UserError(f"damaged at {bad}", where=path, fix="export it again")
            with quiet():
                program = torch.export.load(str(path), extra_files=extra)
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file provokes in the reader is the file's fault
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"not a readable torch.export file ({detail})", where=path) from None
        super().__init__(from_json(extra[METADATA] or "{}", where=path), path)
        self._module = program.module().to(device)

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The program's output."""
        output: Tensor = self._module(images.contiguous())
        return output
