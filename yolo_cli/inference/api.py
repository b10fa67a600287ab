"""The Python API: `model = load("best.pt"); detections = model("street.jpg")`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

from yolo_cli.batch import Detections
from yolo_cli.dataset.images import decode_image, read_image
from yolo_cli.device import select_device
from yolo_cli.errors import UserError
from yolo_cli.inference.predictor import Predictor, Settings, load_predictor
from yolo_cli.inference.sources.images import fetch
from yolo_cli.progress import Silent
from yolo_cli.weights.load import find_weights


@runtime_checkable
class Convertible(Protocol):
    """A PIL image."""

    def convert(self, mode: str) -> Any: ...


Image = str | Path | np.ndarray | Convertible


class Model:
    """A detector. Call it with one image or several."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, indexed by class id."""
        return self._predictor.names

    @property
    def settings(self) -> Settings:
        """The options that were given to `load`."""
        return self._predictor.settings

    @overload
    def __call__(self, images: list[Image] | tuple[Image, ...]) -> list[Detections]: ...
    @overload
    def __call__(self, images: Image) -> Detections: ...
    def __call__(self, images: Image | list[Image] | tuple[Image, ...]) -> Detections | list[Detections]:
        """Detections of one image, or a list of them for a list or tuple of images.

        An image is a path, a URL, a PIL image, or a uint8 array of shape (height, width, 3) in RGB order. OpenCV reads
        frames as BGR: pass `frame[..., ::-1]`. Raises UserError for anything else, and for a file that is unreadable.
        """
        if isinstance(images, list | tuple):
            return [self._one(image) for image in images]
        return self._one(images)

    def _one(self, image: Image) -> Detections:
        pixels = _pixels(image)
        if self.settings.tile:
            return self._predictor.predict_tiled(pixels)
        (found,) = self._predictor.predict([self._predictor.preprocess(pixels)])
        return found


def load(
    weights: str | Path,
    *,
    device: str = "",
    img: int | tuple[int, int] = 640,
    conf: float | str = 0.25,
    iou: float = 0.45,
    max_det: int = 1000,
    classes: Sequence[int] = (),
    agnostic: bool = False,
    augment: bool = False,
    tile: int = 0,
    half: bool = False,
) -> Model:
    """Load a checkpoint (ours or a published one) or an exported file. The options are those of `yolo detect`.

    Raises UserError for a file that cannot be read, a device that is missing, and options that are out of range.
    """
    size = (img, img) if isinstance(img, int) else img
    settings = Settings(size, conf, iou, max_det, tuple(classes), agnostic, augment, tile, half)
    return Model(load_predictor(find_weights(str(weights), exported=True), select_device(device), settings, Silent()))


def _pixels(image: Image) -> np.ndarray:
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return decode_image(fetch(image, image), image)
    if isinstance(image, str | Path):
        return read_image(Path(os.path.expanduser(image)))
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Convertible) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        form = f"{pixels.dtype} of shape {pixels.shape}"
        raise UserError(f"{form}, not uint8 of shape (height, width, 3)", where="image", fix="convert it to RGB")
    return np.ascontiguousarray(pixels)
