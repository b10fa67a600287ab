"""TorchScript: a traced program that libtorch runs without Python."""

import json
import zipfile
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import from_json
from yolo_cli.export.program import WithNMS
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request
from yolo_cli.export.runtime import FileRuntime

METADATA = "yolo_cli.json"  # an extra file within the archive


def write(request: Request, path: Path) -> None:
    """Trace and save. Sizes and batch stay free; a trace records no branch on them."""
    nms = request.metadata.nms
    program = WithNMS(request.program, nms) if nms else request.program
    with torch.no_grad(), quiet():
        traced = torch.jit.trace(program.eval(), request.example(), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={METADATA: request.metadata.to_json().encode()})


def open_file(path: Path, device: torch.device) -> "TorchScriptRuntime":
    """A file ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return TorchScriptRuntime(path, device)


class TorchScriptRuntime(FileRuntime):
    """Runs on torch's interpreter."""

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA: ""}
        try:
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise UserError(f"damaged at {bad}", where=path, fix="export it again")
            with quiet():
                module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file provokes in the reader is the file's fault
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"not a readable TorchScript file ({detail})", where=path) from None
        super().__init__(from_json(extra[METADATA] or json.dumps({}), where=path), path)
        if self.metadata.nms is not None:
            _register_operator()
        self._module = module.eval()

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The traced program's output."""
        output: Tensor = self._module(images.contiguous())
        return output


def _register_operator() -> None:
    from yolo_cli.boxes.nms import load_operator  # noqa: PLC0415

    load_operator()
