"""From pixels to detections: letterbox, network, suppression. The part that the command and the Python API share."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import Detections, prepare_images
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.config import check_at_least, check_fractions, check_img, check_tile
from yolo_cli.dataset.images import fitted_size, letterbox
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.inference.candidates import decode_candidates
from yolo_cli.inference.sources.frames import Canvas
from yolo_cli.inference.tiles import Tile, merge, tiles_of
from yolo_cli.inference.tta import augmented_rows
from yolo_cli.model.build import DetectionModel

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What counts as a detection and how images are looked at; `img` is (height, width), `tile` 0 for whole images."""

    img: tuple[int, int] = (640, 640)
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] = ()
    agnostic: bool = False
    augment: bool = False
    tile: int = 0
    half: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, max_det=1)
        check_fractions(self, "conf", "iou")
        check_img(self.img)
        check_tile(self.tile)


@dataclass(slots=True)
class Spent:
    """Milliseconds of a batch in the network and in suppression."""

    network: float = 0.0
    nms: float = 0.0


class Predictor:
    """A model ready to detect. Its methods may be called from several threads at once."""

    def __init__(self, runtime: Runtime, device: torch.device, settings: Settings) -> None:
        about = runtime.metadata
        self.runtime, self.device, self.settings = runtime, device, settings
        self.names, self._stride = about.names, about.stride
        self._fixed = None if about.dynamic else about.img
        self._iou = settings.iou if about.nms is None else 1.0  # what is suppressed already is not suppressed again
        self._classes = torch.tensor(settings.classes, dtype=torch.int64, device=device) if settings.classes else None

    @property
    def model(self) -> DetectionModel | None:
        """The network, where it runs in PyTorch and its layers can be looked into."""
        return self.runtime.model if isinstance(self.runtime, TorchRuntime) else None

    def place(self, pixels: Pixels, *, bgr: bool = False) -> Canvas:
        """The image on the smallest canvas of whole strides that holds it at `img`, or on the one that a file takes."""
        stride = self._stride
        height, width = fitted_size((pixels.shape[0], pixels.shape[1]), self.settings.img)
        canvas = self._fixed or (-(-height // stride) * stride, -(-width // stride) * stride)
        image, placed = letterbox(pixels, canvas, self.settings.img)
        planes = np.empty((3, *canvas), np.uint8)
        cv2.split(image, [planes[i] for i in ((2, 1, 0) if bgr else (0, 1, 2))])
        return Canvas(torch.from_numpy(planes), placed)

    @torch.inference_mode()
    def batch(self, canvases: Sequence[Canvas], spent: Spent | None = None) -> list[Detections]:
        """What is on each of several canvases of one size, in pixels of the images; tensors on the CPU."""
        spent = spent or Spent()
        settings, start = self.settings, time.perf_counter()
        stacked = torch.stack([canvas.image for canvas in canvases]) if len(canvases) > 1 else canvases[0].image[None]
        images = prepare_images(stacked, self.device, half=settings.half)
        rows = augmented_rows(self._rows, images, self._stride) if settings.augment else self._rows(images)
        self._finish()
        middle = time.perf_counter()
        found = non_max_suppression(
            rows,
            conf=settings.conf,
            iou=self._iou,
            max_det=settings.max_det,
            multi_label=False,
            agnostic=settings.agnostic,
            classes=self._classes,
        )
        placed = [self._placed(one, canvas) for one, canvas in zip(found, canvases, strict=True)]
        spent.network += 1000 * (middle - start)
        spent.nms += 1000 * (time.perf_counter() - middle)
        return placed

    def tiled(self, pixels: Pixels, *, bgr: bool = False, most: int = 1, spent: Spent | None = None) -> Detections:
        """What is on an image, looked at as a whole and in tiles, `most` tiles in a batch."""
        spent, size = spent or Spent(), (pixels.shape[0], pixels.shape[1])
        (whole,) = self.batch([self.place(pixels, bgr=bgr)], spent)
        tiles = tiles_of(*size, self.settings.tile)
        parts: list[tuple[Tile, Detections]] = []
        # A few tiles at a time: all the canvases of an aerial photograph would need more memory than itself.
        for start in range(0, len(tiles), most):
            chosen = tiles[start : start + most]
            cut = [np.ascontiguousarray(pixels[t.top : t.bottom, t.left : t.right]) for t in chosen]
            parts += zip(chosen, self.batch([self.place(part, bgr=bgr) for part in cut], spent), strict=True)
        if not parts:
            return whole
        before, settings = time.perf_counter(), self.settings
        merged = merge(whole, parts, size, iou=settings.iou, max_det=settings.max_det, agnostic=settings.agnostic)
        spent.nms += 1000 * (time.perf_counter() - before)
        return merged

    def _rows(self, images: Tensor) -> list[Tensor]:
        if self.model is None:
            return list(self.runtime.predict(images))
        return decode_candidates(self.model.head, self.model(images), self.settings.conf)

    def _placed(self, found: Detections, canvas: Canvas) -> Detections:
        # Ordinary tensors: those made in inference mode could not be changed by whoever receives them.
        with torch.inference_mode(mode=False):
            columns = (found.xyxy, found.confidence, found.class_id)
            xyxy, confidence, class_id = (column.cpu().clone() for column in columns)
            return Detections(xyxy, confidence, class_id, self.names).to_image(canvas.letterbox)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
