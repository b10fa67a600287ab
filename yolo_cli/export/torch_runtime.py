"""PyTorch behind the same interface as exported files."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.config.thresholds import SavedThresholds
from yolo_cli.export.metadata import Metadata
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse


class TorchRuntime:
    """A fused model in channels-last memory, for any batch size and any image size that is a multiple of the stride."""

    def __init__(
        self,
        model: DetectionModel,
        device: torch.device,
        *,
        half: bool = False,
        thresholds: SavedThresholds | None = None,
    ) -> None:
        fused = fuse(model.to(device).eval()).to(memory_format=torch.channels_last)
        self.model = fused.half() if half else fused
        self._metadata = Metadata(model.names, model.stride, (0, 0), 0, dynamic=True, half=half, thresholds=thresholds)

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_ o"]]:
        return list(self.model.decode(self.model(images)))
