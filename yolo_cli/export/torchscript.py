"""TorchScript: a traced program that libtorch runs without Python."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.boxes.greedy_nms import load_operator
from yolo_cli.errors import UserError, first_line
from yolo_cli.export.metadata import from_json
from yolo_cli.export.runtime import FileRuntime, check_zip
from yolo_cli.export.silence import silence
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.wrappers import WithNMS

METADATA = "yolo_cli.json"  # an extra file in the archive


def write(spec: ExportSpec, path: Path) -> None:
    """Trace and save. Batch and image size stay dynamic, because a trace records no branch on them."""
    network, nms = spec.module(), spec.metadata.nms
    with torch.no_grad(), silence():
        traced = torch.jit.trace(WithNMS(network, nms).eval() if nms else network, spec.example(), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={METADATA: spec.metadata.to_json().encode()})


class TorchScriptRuntime(FileRuntime):
    """Runs on torch's interpreter."""

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA: ""}
        try:
            check_zip(path)
            with silence():
                module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except UserError:
            raise
        except Exception as error:  # a damaged file may raise anything
            raise UserError(f"not a readable TorchScript file ({first_line(error)})", where=path) from None
        super().__init__(from_json(extra[METADATA] or "{}", where=path), path)
        if self.metadata.nms is not None:
            load_operator()
        self._module = module.eval()

    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        return self._module(images.contiguous())
