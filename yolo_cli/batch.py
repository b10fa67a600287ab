"""The data types that travel: a batch of images into the model, detections out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image file was laid onto the network's canvas: `canvas = image * scale + pad`, in pixels."""

    height: int  # of the image file
    width: int
    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Images on one canvas size and the boxes on them.

    `targets` rows are (image in the batch, class, cx, cy, w, h), the box as fractions of the canvas.
    `indices` are positions in the data set; `letterboxes` lead back to the files' own pixels (in training, where
    a canvas shows several files, they are identities).
    """

    images: UInt8[Tensor, "b 3 h w"]
    targets: Float[Tensor, "n 6"]
    indices: tuple[int, ...]
    letterboxes: tuple[Letterbox, ...]

    def pin_memory(self) -> "Batch":
        """Page-locked copies, which `DataLoader(pin_memory=True)` asks for."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.letterboxes)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, most confident first; boxes in pixels."""

    xyxy: Float[Tensor, "n 4"]
    confidence: Float[Tensor, " n"]
    class_id: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.confidence)

    @staticmethod
    def empty() -> "Detections":
        """No detection at all."""
        return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def to_image(self, letterbox: Letterbox) -> "Detections":
        """From canvas pixels to the image file's own, cut at its edges."""
        scale = self.xyxy.new_tensor([letterbox.scale_x, letterbox.scale_y] * 2)
        pad = self.xyxy.new_tensor([letterbox.pad_x, letterbox.pad_y] * 2)
        limit = self.xyxy.new_tensor([letterbox.width, letterbox.height] * 2)
        boxes = ((self.xyxy - pad) / scale).clamp(min=0).minimum(limit)
        return Detections(boxes, self.confidence, self.class_id)


def split_targets(targets: Float[Tensor, "n 6"], images: int) -> Sequence[Float[Tensor, "m 5"]]:
    """The rows (class, cx, cy, w, h) of each image of a batch, in order."""
    return [targets[targets[:, 0] == i, 1:] for i in range(images)]
