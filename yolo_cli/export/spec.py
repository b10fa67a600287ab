"""The input of a format's `write` function."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.export.metadata import Metadata
from yolo_cli.export.samples import SampleImages
from yolo_cli.export.wrappers import IMAGES, WithDecoding
from yolo_cli.model.build import DetectionModel


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """A fused model and how to write it. The model is a copy, which the format may change."""

    model: DetectionModel
    metadata: Metadata
    opset: int
    simplify: bool
    device: torch.device
    calibration: SampleImages | None = None  # for INT8

    def module(self) -> WithDecoding:
        """The network with its decoding, in eval mode."""
        return WithDecoding(self.model, half=self.metadata.half).eval()

    def example(self) -> Float[Tensor, "b 3 h w"]:
        """An input of the size that the file is made for."""
        height, width = self.metadata.img
        return torch.rand(self.metadata.batch, 3, height, width, device=self.device)

    def dynamic_example(self) -> Float[Tensor, "2 3 h w"]:
        """An input to capture dynamic sizes from. torch would take a batch of 1, or equal sides, for constants."""
        height, width = self.metadata.img
        return torch.rand(2, 3, height, width + self.metadata.stride, device=self.device)

    def dynamic_shapes(self) -> dict[str, dict[int, object]]:
        """The dimensions of the input that `torch.export` is to keep dynamic: batch, height, width."""
        dynamic = torch.export.Dim.DYNAMIC
        return {IMAGES: {0: dynamic, 2: dynamic, 3: dynamic}}

    def calibration_batches(self) -> Iterator[Float[Tensor, "b 3 h w"]]:
        """Full batches of calibration images; the last one repeats images where there are too few."""
        assert self.calibration is not None
        size = self.metadata.batch
        for _, batch in self.calibration.batches(self.metadata.img, size):
            yield batch[torch.arange(size) % len(batch)]
