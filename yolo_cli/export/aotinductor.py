"""AOTInductor: the captured program, compiled to native code in one package."""

import shutil
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError, first_line
from yolo_cli.export.metadata import from_json
from yolo_cli.export.pt2 import capture
from yolo_cli.export.runtime import FileRuntime, check_zip
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec

METADATA = "yolo_cli"  # a key of the package's own metadata


def missing() -> str:
    """What is missing on this machine; "" for nothing."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    return "" if compiler else "needs a C++ compiler (g++ or clang++)"


def write(spec: ExportSpec, path: Path) -> None:
    program = capture(spec)
    options = {"aot_inductor.metadata": {METADATA: spec.metadata.to_json()}}
    with silence():
        from torch._inductor import aoti_compile_and_package  # noqa: PLC0415 - takes seconds to import

        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


class AOTInductorRuntime(FileRuntime):
    """Runs native code: the package is a program, and must be trusted like one (docs/security.md)."""

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            check_zip(path)  # torch's loader does not verify checksums, and would run damaged code
            with silence():
                from torch._inductor import aoti_load_package  # noqa: PLC0415 - takes seconds to import

                self._module = aoti_load_package(str(path))
            text = self._module.get_metadata().get(METADATA, "{}")
        except UserError:
            raise
        except Exception as error:  # a damaged package may raise anything
            raise UserError(f"not a readable AOTInductor package ({first_line(error)})", where=path) from None
        super().__init__(from_json(text, where=path), path)

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        return self._module(images.contiguous())
