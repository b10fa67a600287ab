"""Detecting from Python: `model = load("best.pt"); detections = model("street.jpg")`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

from yolo_cli.batch import Detections
from yolo_cli.commands.detect import load_predictor
from yolo_cli.dataset.images import decode_image, read_image
from yolo_cli.device import select_device
from yolo_cli.errors import UserError
from yolo_cli.inference.predictor import Predictor, Settings
from yolo_cli.inference.sources.images import fetch
from yolo_cli.progress import Silent
from yolo_cli.weights.load import find_weights


@runtime_checkable
class Convertible(Protocol):
    """A PIL image, which this package need not have."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""
        ...


Picture = str | Path | np.ndarray | Convertible


class Model:
    """A detector. Call it with a picture, or with several."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, by class id."""
        return self._predictor.names

    @property
    def settings(self) -> Settings:
        """What counts as a detection; given to `load`."""
        return self._predictor.settings

    @overload
    def __call__(self, pictures: list[Picture] | tuple[Picture, ...]) -> list[Detections]: ...
    @overload
    def __call__(self, pictures: Picture) -> Detections: ...
    def __call__(self, pictures: Picture | list[Picture] | tuple[Picture, ...]) -> Detections | list[Detections]:
        """Detections of a picture, or a list of them for a list or tuple of pictures.

        A picture is a path, a URL, a PIL image, or an array (height, width, 3) of uint8 in the order RGB; a frame that
        OpenCV read is BGR and goes in as `frame[..., ::-1]`. Raises UserError for what is none of these.
        """
        if isinstance(pictures, list | tuple):
            return [self._one(picture) for picture in pictures]
        return self._one(pictures)

    def _one(self, picture: Picture) -> Detections:
        pixels = _pixels(picture)
        if self.settings.tile:
            return self._predictor.tiled(pixels)
        (found,) = self._predictor.batch([self._predictor.place(pixels)])
        return found


def load(
    weights: str | Path,
    *,
    device: str = "",
    img: int | tuple[int, int] = 640,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 1000,
    classes: Sequence[int] = (),
    agnostic: bool = False,
    augment: bool = False,
    tile: int = 0,
    half: bool = False,
) -> Model:
    """A model of a weight file, ours or a published one; the options mean what they mean for `yolo detect`.

    Raises UserError for a file that is none, a device that is not there, and options that make no sense.
    """
    size = (img, img) if isinstance(img, int) else img
    settings = Settings(size, conf, iou, max_det, tuple(classes), agnostic, augment, tile, half)
    return Model(load_predictor(find_weights(str(weights), exported=True), select_device(device), settings, Silent()))


def _pixels(picture: Picture) -> np.ndarray:
    if isinstance(picture, str) and picture.startswith(("http://", "https://")):
        return decode_image(fetch(picture, picture), picture)
    if isinstance(picture, str | Path):
        return read_image(Path(os.path.expanduser(picture)))
    pixels = np.asarray(picture if isinstance(picture, np.ndarray) else _as_rgb(picture))
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        form = f"{pixels.dtype} of shape {pixels.shape}"
        raise UserError(f"is {form}, not uint8 of shape (height, width, 3)", where="picture", fix="convert it to RGB")
    return np.ascontiguousarray(pixels)


def _as_rgb(picture: Any) -> Any:
    return picture.convert("RGB") if hasattr(picture, "convert") else picture
