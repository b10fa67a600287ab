"""torch.export: the captured program, for torch's own tools."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError, first_line
from yolo_cli.export.metadata import from_json
from yolo_cli.export.runtime import FileRuntime, check_zip
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec

METADATA = "yolo_cli.json"  # an extra file in the archive


def capture(spec: ExportSpec) -> torch.export.ExportedProgram:
    """The program as torch captures it; a dynamic one takes any batch size and any multiples of the stride."""
    dynamic = spec.metadata.dynamic
    with torch.no_grad(), silence():
        return torch.export.export(
            spec.module(),
            (spec.dynamic_example() if dynamic else spec.example(),),
            dynamic_shapes=spec.dynamic_shapes() if dynamic else None,
        )


def write(spec: ExportSpec, path: Path) -> None:
    program = capture(spec)
    with silence():
        torch.export.save(program, str(path), extra_files={METADATA: spec.metadata.to_json()})


class TorchExportRuntime(FileRuntime):
    """Runs the captured operators one by one."""

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA: ""}
        try:
            check_zip(path)
            with silence():
                program = torch.export.load(str(path), extra_files=extra)
        except UserError:
            raise
        except Exception as error:  # a damaged file may raise anything
            raise UserError(f"not a readable torch.export file ({first_line(error)})", where=path) from None
        super().__init__(from_json(extra[METADATA] or "{}", where=path), path)
        self._module = program.module().to(device)

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        return self._module(images.contiguous())
