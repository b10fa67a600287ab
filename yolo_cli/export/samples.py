"""Images for proving and calibrating: a data set's, or drawn ones where none is given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from yolo_cli.dataset.images import decode_image, letterbox
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.dataset.synthetic import draw

BUILT_IN = 8
_VAL = 1  # the split of the drawn images


@dataclass(frozen=True, slots=True)
class Samples:
    """Some images of an index, evenly spread over it; drawn ones without an index."""

    index: LabelIndex | None
    most: int

    @property
    def count(self) -> int:
        """How many there are."""
        return min(self.most, len(self.index)) if self.index is not None else BUILT_IN

    def batches(
        self, canvas: tuple[int, int], size: int, count: int = 0
    ) -> Iterator[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]]:
        """Names and images in 0 … 1 on a canvas (height, width), in batches; `count` of them, or all."""
        names, images = [], []
        total = min(count, self.count) if count else self.count
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
            return f"drawn image {i}", draw(_VAL, i)[0]
        position = i * len(self.index) // self.count
        path = self.index.path(position)
        return path.name, decode_image(self.index.content(position), path)
