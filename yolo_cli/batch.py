"""The data types that travel: a batch of images into the model, detections out of it."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yolo_cli.errors import UserError


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


def prepare_images(images: Tensor, device: torch.device, *, half: bool = False) -> Float[Tensor, "b 3 h w"]:
    """uint8 images as the network takes them: 0 … 1, on its device, channels last (convolutions are faster so)."""
    moved = images.to(device, non_blocking=True)
    floating = moved.half() if half else moved.float()
    return floating.div_(255).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, most confident first; boxes in pixels. `names` are the classes', where known."""

    xyxy: Float[Tensor, "n 4"]
    confidence: Float[Tensor, " n"]
    class_id: Int[Tensor, " n"]
    names: tuple[str, ...] = ()

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
        return Detections(boxes, self.confidence, self.class_id, self.names)

    def name(self, class_id: int) -> str:
        """The name of a class, or its number where it has none."""
        return self.names[class_id] if 0 <= class_id < len(self.names) else str(class_id)

    def counts(self) -> dict[str, int]:
        """How many of each class, the classes in their own order."""
        ids, numbers = self.class_id.unique(return_counts=True)
        return {self.name(i): n for i, n in zip(ids.tolist(), numbers.tolist(), strict=True)}

    def numpy(self) -> Float[np.ndarray, "n 6"]:
        """Rows x1, y1, x2, y2, confidence, class id."""
        rows = torch.cat((self.xyxy, self.confidence[:, None], self.class_id[:, None].to(self.xyxy)), 1)
        return np.asarray(rows.detach().cpu().float().numpy())

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id (the class id), bbox (x, y, w, h in pixels), score."""
        boxes = torch.cat((self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]), 1).tolist()
        rows = zip(self.class_id.tolist(), boxes, self.confidence.tolist(), strict=True)
        return [{"image_id": image_id, "category_id": c, "bbox": box, "score": score} for c, box, score in rows]

    def to_supervision(self) -> Any:
        """As `supervision.Detections`. Raises UserError where that library is not installed."""
        try:
            supervision = importlib.import_module("supervision")
        except ImportError:
            raise UserError("supervision is not installed", fix="pip install 'yolo-cli[supervision]'") from None
        rows = self.numpy()
        ids = rows[:, 5].astype(int)
        named = {"class_name": np.array([self.name(i) for i in ids.tolist()], dtype=str)}
        return supervision.Detections(xyxy=rows[:, :4], confidence=rows[:, 4], class_id=ids, data=named)


def split_targets(targets: Float[Tensor, "n 6"], images: int) -> Sequence[Float[Tensor, "m 5"]]:
    """The rows (class, cx, cy, w, h) of each image of a batch, in order."""
    return [targets[targets[:, 0] == i, 1:] for i in range(images)]
