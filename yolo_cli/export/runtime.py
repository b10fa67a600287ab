"""One interface for running a model, whatever file it came from: `yolo val`, `yolo detect` and parity checks use it."""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.boxes.convert import xyxy_to_cxcywh
from yolo_cli.errors import UserError
from yolo_cli.export.metadata import Metadata


@runtime_checkable
class Runtime(Protocol):
    """A model that is ready to run."""

    @property
    def metadata(self) -> Metadata:
        """Class names, sizes, thresholds."""
        ...

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_ o"]]:
        """Predictions (cx, cy, w, h in pixels, objectness, class probabilities) for each image, before NMS.

        A file with NMS inside gives its detections: objectness is then the confidence, and one class has 1.
        """
        ...


class FileRuntime(ABC):
    """Base of the runtimes of exported files: splits inputs into the file's batch size, and converts both outputs."""

    def __init__(self, metadata: Metadata, path: Path) -> None:
        self._metadata, self._path = metadata, path
        self._first_call, self._ready = Lock(), False

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    @abstractmethod
    def run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """The file's output for a batch of its size: predictions (b, n, o), or detections (k, 7)."""

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_ o"]]:
        """See `Runtime.predict`. Raises UserError where the file's own runtime fails."""
        if self.metadata.dynamic:
            return self._predict(images)
        size, predictions = self.metadata.batch, list[Tensor]()
        for part in images.split(size):
            missing = size - len(part)
            filled = torch.cat((part, part.new_zeros(missing, *part.shape[1:]))) if missing else part
            predictions += self._predict(filled)[: len(part)]
        return predictions

    def _predict(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        try:
            return self._split(self._run(images), len(images))
        except UserError:
            raise
        except Exception as error:  # runtimes raise any exception for a damaged file, or an input that does not fit
            detail = " ".join(str(error).split())[:160] or type(error).__name__
            what = f"its runtime fails on images of {' × '.join(map(str, images.shape))} ({detail})"
            raise UserError(what, where=self._path, fix="export it again") from error

    def _run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """`run`, the first time in one thread only.

        OpenVINO's binding initializes static data at first use. Of two threads that come at once, one holds
        Python's lock and waits for the data, the other holds the data's guard and waits for Python's lock.
        """
        with self._first_call:
            if not self._ready:
                output = self.run(images)
                self._ready = True
                return output
        return self.run(images)

    def _split(self, output: Tensor, batch: int) -> list[Tensor]:
        if self.metadata.nms is None:
            return list(output.float())
        image, classes = output[:, 0].long(), len(self.metadata.names)
        labels = torch.nn.functional.one_hot(output[:, 6].long(), classes).to(output.dtype)
        rows = torch.cat((xyxy_to_cxcywh(output[:, 1:5]), output[:, 5:6], labels), 1)
        return [rows[image == i] for i in range(batch)]


def check_zip(path: Path) -> None:
    """Raises UserError for a damaged member of a zip file, or BadZipFile. torch does not verify checksums."""
    with zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise UserError(f"damaged at {bad}", where=path, fix="export it again")
