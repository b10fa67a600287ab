"""The types that are passed between dataset, model and evaluation: a batch of images, and detections."""

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yolo_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image file was scaled and padded to the network input: `canvas = image * scale + pad`, in pixels."""

    height: int  # of the image file
    width: int
    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


@dataclass(frozen=True, slots=True)
class TargetCounts:
    """What the host has counted in the targets of a batch, so that it need not wait for a GPU to learn it.

    The targets are in the order of their images, and after them come the regions to be ignored.
    """

    regions: int
    most: int  # largest number of targets of one image

    @staticmethod
    def of(targets: Float[Tensor, "n 6"]) -> "TargetCounts":
        """Count targets in any order; their values are read."""
        boxes = targets[targets[:, 1] >= 0]
        return TargetCounts(len(targets) - len(boxes), int(boxes[:, 0].long().bincount().max()) if len(boxes) else 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size with their ground truth."""

    images: UInt8[Tensor, "b 3 h w"]  # RGB
    targets: Float[Tensor, "n 6"]  # image in the batch, class (−1: ignore), cx, cy, w, h as fractions of the input
    indices: tuple[int, ...]  # positions in the dataset
    letterboxes: tuple[Letterbox, ...]  # identities in training, where an image can be made of several files
    counts: TargetCounts | None = None  # None: the targets are in any order, and the loss counts them

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory; called by `DataLoader(pin_memory=True)`."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """A copy on a device; from page-locked memory it is made while the host continues."""
        images, targets = (part.to(device, non_blocking=True) for part in (self.images, self.targets))
        return replace(self, images=images, targets=targets)


def prepare_images(images: Tensor, device: torch.device, *, half: bool = False) -> Float[Tensor, "b 3 h w"]:
    """Convert uint8 images to the network input: 0 … 1, on the device, channels last, which is faster."""
    moved = images.to(device, non_blocking=True)
    floating = moved.half() if half else moved.float()
    return floating.div_(255).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True)
class Detections:
    """Detections on one image, most confident first. `names` are class names, if they are known."""

    xyxy: Float[Tensor, "n 4"]  # in pixels
    confidence: Float[Tensor, " n"]
    class_id: Int[Tensor, " n"]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.confidence)

    @staticmethod
    def empty() -> "Detections":
        """Detections without boxes."""
        return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def to_image(self, letterbox: Letterbox) -> "Detections":
        """Map boxes from pixels of the network input to those of the image file, and clip them to the image."""
        scale = self.xyxy.new_tensor([letterbox.scale_x, letterbox.scale_y] * 2)
        pad = self.xyxy.new_tensor([letterbox.pad_x, letterbox.pad_y] * 2)
        limit = self.xyxy.new_tensor([letterbox.width, letterbox.height] * 2)
        boxes = ((self.xyxy - pad) / scale).clamp(min=0).minimum(limit)
        return Detections(boxes, self.confidence, self.class_id, self.names)

    def to_canvas(self, letterbox: Letterbox) -> "Detections":
        """Map boxes from pixels of the image file to those of the network input."""
        scale = self.xyxy.new_tensor([letterbox.scale_x, letterbox.scale_y] * 2)
        pad = self.xyxy.new_tensor([letterbox.pad_x, letterbox.pad_y] * 2)
        return Detections(self.xyxy * scale + pad, self.confidence, self.class_id, self.names)

    def name(self, class_id: int) -> str:
        """The name of a class, or its id if it has none."""
        return self.names[class_id] if 0 <= class_id < len(self.names) else str(class_id)

    def counts(self) -> dict[str, int]:
        """The number of detections by class name, in the order of the class ids."""
        ids, numbers = self.class_id.unique(return_counts=True)
        return {self.name(i): n for i, n in zip(ids.tolist(), numbers.tolist(), strict=True)}

    def numpy(self) -> Float[np.ndarray, "n 6"]:
        """Rows x1, y1, x2, y2, confidence, class id."""
        rows = torch.cat((self.xyxy, self.confidence[:, None], self.class_id[:, None].to(self.xyxy)), 1)
        return rows.detach().cpu().float().numpy()

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id (the class id), bbox (x, y, w, h in pixels), score."""
        boxes = torch.cat((self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]), 1).tolist()
        rows = zip(self.class_id.tolist(), boxes, self.confidence.tolist(), strict=True)
        return [{"image_id": image_id, "category_id": c, "bbox": box, "score": score} for c, box, score in rows]

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections`. Raises UserError if that package is not installed."""
        try:
            supervision = importlib.import_module("supervision")
        except ImportError:
            raise UserError("supervision is not installed", fix="pip install 'yolo-cli[supervision]'") from None
        rows = self.numpy()
        ids = rows[:, 5].astype(int)
        named = {"class_name": np.array([self.name(i) for i in ids.tolist()], dtype=str)}
        return supervision.Detections(xyxy=rows[:, :4], confidence=rows[:, 4], class_id=ids, data=named)
