"""Brightness of the images of an evaluation, measured on the way."""

from collections.abc import Sequence

import numpy as np

from yolo_cli.batch import Batch, Detections
from yolo_cli.distributed.world import World

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_STEP = 8  # every 8th row and column are enough for a mean


class Brightness:
    """Observer of an evaluation: `values` is the mean luma (0 … 1) by position in the index; nan if not seen."""

    def __init__(self, images: int) -> None:
        self.values = np.full(images, np.nan)

    def __call__(self, number: int, batch: Batch, found: Sequence[Detections]) -> None:
        """Measure the images of a batch, without their padding."""
        pixels = batch.images[:, :, ::_STEP, ::_STEP].cpu().numpy()
        for image, position, box in zip(pixels, batch.indices, batch.letterboxes, strict=True):
            top, left = -(-round(box.pad_y) // _STEP), -(-round(box.pad_x) // _STEP)
            bottom = max(round(box.pad_y + box.height * box.scale_y) // _STEP, top + 1)
            right = max(round(box.pad_x + box.width * box.scale_x) // _STEP, left + 1)
            channels = image[:, top:bottom, left:right].reshape(3, -1).mean(axis=1)
            self.values[position] = float(channels @ _LUMA) / 255

    def gather(self, world: World) -> None:
        """Take over what the other ranks measured. All ranks must call it; the values are complete on the main one."""
        for values in world.gather_objects(self.values):
            self.values = np.where(np.isnan(self.values), values, self.values)
