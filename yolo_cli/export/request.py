"""What a format is asked to write."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.export.metadata import Metadata
from yolo_cli.export.program import Program
from yolo_cli.model.build import DetectionModel

Calibration = Callable[[], Iterator[Float[Tensor, "b 3 h w"]]]  # images as the network takes them, anew each call


@dataclass(frozen=True, slots=True)
class Request:
    """A fused model and how it is to be written; the model is the exporter's own copy."""

    model: DetectionModel
    metadata: Metadata
    opset: int
    simplify: bool
    device: torch.device
    calibration: Calibration | None = None  # for int8

    @property
    def program(self) -> Program:
        """The network with its decoding."""
        return Program(self.model, half=self.metadata.half)

    def example(self, batch: int = 0) -> Float[Tensor, "b 3 h w"]:
        """An input of the size that the file is made for."""
        height, width = self.metadata.img
        return torch.rand(batch or self.metadata.batch, 3, height, width, device=self.device)


def require(package: str, extra: str) -> Any:
    """Import an optional package. Raises UserError naming the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.partition(".")[0]
        missing = importlib.util.find_spec(top) is None
        what = f"{top} is not installed" if missing else f"{package} does not load here ({error})"
        raise UserError(what, where=extra, fix=f"pip install 'yolo-cli[{extra}]'") from None
