"""AOTInductor: the captured program compiled to native code, in one package."""

import zipfile
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import from_json
from yolo_cli.export.pt2 import capture
from yolo_cli.export.quiet import quiet
from yolo_cli.export.request import Request
from yolo_cli.export.runtime import FileRuntime

METADATA = "yolo_cli"  # a key of the package's own metadata


def write(request: Request, path: Path) -> None:
    """Capture, compile, save."""
    program = capture(request)
    options = {"aot_inductor.metadata": {METADATA: request.metadata.to_json()}}
    with quiet():
        from torch._inductor import aoti_compile_and_package  # noqa: PLC0415 - seconds of imports, wanted here alone

        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def open_file(path: Path, device: torch.device) -> "CompiledRuntime":
    """A package ready to run. Raises UserError for one that is damaged or was written elsewhere."""
    return CompiledRuntime(path, device)


class CompiledRuntime(FileRuntime):
    """Runs native code: the package is a program, to be trusted as one (docs/security.md)."""

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            with zipfile.ZipFile(path) as archive:  # its loader does not look at sums, and would run damaged code
                if bad := archive.testzip():
                    raise UserError(f"damaged at {bad}", where=path, fix="export it again")
            with quiet():
                from torch._inductor import aoti_load_package  # noqa: PLC0415 - as above

                self._module = aoti_load_package(str(path))
            text = self._module.get_metadata().get(METADATA, "{}")
        except UserError:
            raise
        except Exception as error:  # whatever a damaged package provokes in the loader is the package's fault
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"not a readable AOTInductor package ({detail})", where=path) from None
        super().__init__(from_json(text, where=path), path)

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The compiled program's output."""
        output: Tensor = self._module(images.contiguous())
        return output
