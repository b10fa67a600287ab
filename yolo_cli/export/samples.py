"""Images for parity checks and calibration: those of a dataset, or synthetic ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from yolo_cli.dataset.images import decode_image, letterbox
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.synthetic import draw

SYNTHETIC_IMAGES = 8
_VAL = 1  # split of the synthetic dataset


@dataclass(frozen=True, slots=True)
class SampleImages:
    """At most `limit` images, evenly spaced over an index; synthetic images without an index."""

    index: LabelIndex | None
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.index)) if self.index is not None else SYNTHETIC_IMAGES

    def batches(
        self, canvas: tuple[int, int], size: int, count: int = 0
    ) -> Iterator[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]]:
        """Names and images (0 … 1, letterboxed to `canvas` = height, width) in batches; the first `count`, or all."""
        names, images = [], []
        total = min(count, len(self)) if count else len(self)
        for i in range(total):
            name, pixels = self._read(i)
            image, _ = letterbox(pixels, canvas, canvas)
            names.append(name)
            images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
            if len(images) == size or i + 1 == total:
                yield names, torch.stack(images).float().div_(255).contiguous(memory_format=torch.channels_last)
                names, images = [], []

    def _read(self, i: int) -> tuple[str, UInt8[np.ndarray, "h w 3"]]:
        if self.index is None:
            return f"synthetic image {i}", draw(_VAL, i)[0]
        position = i * len(self.index) // len(self)
        path = self.index.path(position)
        return path.name, decode_image(self.index.content(position), path)
