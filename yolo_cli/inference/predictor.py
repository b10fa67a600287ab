"""From pixels to detections: letterbox, network, NMS. Shared by `yolo detect` and the Python API."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import Detections, prepare_images
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.config.checks import check_at_least, check_fractions, check_img, check_tile, resolve_tile
from yolo_cli.config.thresholds import DEFAULT, check_conf, lowest, resolve_conf
from yolo_cli.dataset.images import fitted_size, letterbox
from yolo_cli.device import check_half
from yolo_cli.errors import UserError
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.inference.sources.frames import ModelInput
from yolo_cli.inference.tiles import Tile, merge_tiles, split_into_tiles
from yolo_cli.inference.tta import augmented_rows
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.candidates import decode_candidates
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import load_model, resolve_image_size, warn_of_fixed_thresholds

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are looked at, and which detections count. The names are those of the options of `yolo detect`."""

    img: tuple[int, int] = (640, 640)  # height, width
    conf: float | str = DEFAULT  # a number, `auto`, or thresholds per class such as `person=0.4,car=0.3`
    iou: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] = ()  # empty: all
    agnostic: bool = False
    augment: bool = False
    tile: int = 0  # side in pixels of the image; 0: no tiles, TILE_AS_IMG: the larger side of `img`
    half: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, max_det=1)
        check_conf(self.conf)
        check_fractions(self, "iou")
        check_img(self.img)
        check_tile(self.tile)


@dataclass(slots=True)
class Timing:
    """Milliseconds that a batch takes."""

    network: float = 0.0
    nms: float = 0.0


class Predictor:
    """A model ready to detect. Its methods may be called from several threads at once."""

    def __init__(self, runtime: Runtime, device: torch.device, settings: Settings) -> None:
        metadata = runtime.metadata
        self.runtime, self.device, self.settings = runtime, device, settings
        self.names, self._stride = metadata.names, metadata.stride
        self._fixed_size = None if metadata.dynamic else metadata.img
        self.conf = resolve_conf(settings.conf, metadata.names, metadata.thresholds)
        self._iou = settings.iou if metadata.nms is None else 1.0  # no second NMS after the one in an exported file
        self._classes = torch.tensor(settings.classes, dtype=torch.int64, device=device) if settings.classes else None

    @property
    def model(self) -> DetectionModel | None:
        """The network, or None where it runs in an exported file's own runtime."""
        return self.runtime.model if isinstance(self.runtime, TorchRuntime) else None

    def preprocess(self, pixels: Pixels, *, bgr: bool = False) -> ModelInput:
        """Letterbox an image to `settings.img`, with the least border that makes the sides multiples of the stride.

        An exported file of one size gets that size.
        """
        stride = self._stride
        height, width = fitted_size((pixels.shape[0], pixels.shape[1]), self.settings.img)
        size = self._fixed_size or (-(-height // stride) * stride, -(-width // stride) * stride)
        image, geometry = letterbox(pixels, size, self.settings.img)
        planes = np.empty((3, *size), np.uint8)
        cv2.split(image, [planes[i] for i in ((2, 1, 0) if bgr else (0, 1, 2))])
        return ModelInput(torch.from_numpy(planes), geometry)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[ModelInput], timing: Timing | None = None) -> list[Detections]:
        """Detections of each of several inputs of one size, in pixels of their images; tensors on the CPU."""
        timing = timing or Timing()
        settings, start = self.settings, time.perf_counter()
        stacked = torch.stack([one.image for one in inputs]) if len(inputs) > 1 else inputs[0].image[None]
        images = prepare_images(stacked, self.device, half=settings.half)
        rows = augmented_rows(self._rows, images, self._stride) if settings.augment else self._rows(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        middle = time.perf_counter()
        found = non_max_suppression(
            rows,
            conf=self.conf,
            iou=self._iou,
            max_det=settings.max_det,
            multi_label=False,
            agnostic=settings.agnostic,
            classes=self._classes,
        )
        results = [self._in_image(one, model_input) for one, model_input in zip(found, inputs, strict=True)]
        timing.network += 1000 * (middle - start)
        timing.nms += 1000 * (time.perf_counter() - middle)
        return results

    def predict_tiled(
        self, pixels: Pixels, *, bgr: bool = False, batch: int = 1, timing: Timing | None = None
    ) -> Detections:
        """Detections of an image seen as a whole and in overlapping tiles, `batch` tiles at a time."""
        timing, size = timing or Timing(), (pixels.shape[0], pixels.shape[1])
        (whole,) = self.predict([self.preprocess(pixels, bgr=bgr)], timing)
        tiles = split_into_tiles(*size, self.settings.tile)
        parts: list[tuple[Tile, Detections]] = []
        # All tiles of an aerial photograph at once would need more memory than the photograph.
        for start in range(0, len(tiles), batch):
            chosen = tiles[start : start + batch]
            cut = [np.ascontiguousarray(pixels[t.top : t.bottom, t.left : t.right]) for t in chosen]
            parts += zip(chosen, self.predict([self.preprocess(part, bgr=bgr) for part in cut], timing), strict=True)
        if not parts:
            return whole
        before, settings = time.perf_counter(), self.settings
        merged = merge_tiles(whole, parts, size, iou=settings.iou, max_det=settings.max_det, agnostic=settings.agnostic)
        timing.nms += 1000 * (time.perf_counter() - before)
        return merged

    def _rows(self, images: Tensor) -> list[Tensor]:
        if self.model is None:
            return list(self.runtime.predict(images))
        return decode_candidates(self.model.head, self.model(images), lowest(self.conf))

    def _in_image(self, found: Detections, model_input: ModelInput) -> Detections:
        # Ordinary tensors: the caller could not change those made in inference mode.
        with torch.inference_mode(mode=False):
            columns = (found.xyxy, found.confidence, found.class_id)
            xyxy, confidence, class_id = (column.cpu().clone() for column in columns)
            return Detections(xyxy, confidence, class_id, self.names).to_image(model_input.letterbox)


def load_predictor(path: Path, device: torch.device, settings: Settings, reporter: Reporter) -> Predictor:
    """Open a checkpoint or an exported file for detection. Raises UserError, also for settings out of range."""
    check_half(settings.half, device)
    opened = load_model(path, device, reporter, half=settings.half)
    unknown = [c for c in settings.classes if not 0 <= c < len(opened.names)]
    if unknown:
        raise UserError(f"the model's classes are 0 to {len(opened.names) - 1}", where=f"--classes {unknown[0]}")
    if opened.img and settings.augment:
        fix = "export it with --dynamic"
        raise UserError("needs several image sizes, but the file takes one", where="--augment", fix=fix)
    img = resolve_image_size(opened, settings.img, Settings().img, reporter)
    predictor = Predictor(opened.runtime, device, replace(settings, img=img, tile=resolve_tile(settings.tile, img)))
    warn_of_fixed_thresholds(opened, predictor.conf, settings.iou, settings.max_det, reporter)
    return predictor
