"""Running a model, whatever file it came from: one interface for `yolo val`, `yolo detect` and an export's proof."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.boxes.convert import xyxy_to_cxcywh
from yolo_cli.errors import UserError
from yolo_cli.export.metadata import Metadata


@runtime_checkable
class Runtime(Protocol):
    """A model ready to run."""

    @property
    def metadata(self) -> Metadata:
        """Classes, sizes, thresholds."""
        ...

    def rows(self, images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_ o"]]:
        """Decoded rows of each image (cx, cy, w, h in pixels, objectness, class probabilities), on the CPU or a GPU.

        A file with suppression inside gives what it kept, as rows of objectness = confidence and one class of 1.
        """
        ...


class FileRuntime(ABC):
    """What the runtimes of exported files share: batches of the file's size, and rows from either kind of output."""

    def __init__(self, metadata: Metadata, path: Path) -> None:
        self._metadata, self._path = metadata, path

    @property
    def metadata(self) -> Metadata:
        """What the file says of itself."""
        return self._metadata

    @abstractmethod
    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The file's output for a batch of its size: rows (b, n, o), or detections (k, 7)."""

    def rows(self, images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_ o"]]:
        """Decoded rows of each image. Raises UserError where the file's own runtime fails on them."""
        if self.metadata.dynamic:
            return self._rows(images)
        size, found = self.metadata.batch, list[Tensor]()
        for part in images.split(size):
            missing = size - len(part)
            filled = torch.cat((part, part.new_zeros(missing, *part.shape[1:]))) if missing else part
            found += self._rows(filled)[: len(part)]
        return found

    def _rows(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        try:
            return self._split(self.run(images), len(images))
        except UserError:
            raise
        except Exception as error:  # runtimes raise what they like where a file is damaged, or is not what it says
            detail = " ".join(str(error).split())[:160] or type(error).__name__
            what = f"its runtime fails on images of {' × '.join(map(str, images.shape))} ({detail})"
            raise UserError(what, where=self._path, fix="export it again") from error

    def _split(self, output: Tensor, batch: int) -> list[Tensor]:
        if self.metadata.nms is None:
            return list(output.float())
        image, classes = output[:, 0].long(), len(self.metadata.names)
        labels = torch.nn.functional.one_hot(output[:, 6].long(), classes).to(output.dtype)
        rows = torch.cat((xyxy_to_cxcywh(output[:, 1:5]), output[:, 5:6], labels), 1)
        return [rows[image == i] for i in range(batch)]
