"""Samples for the network, in batches: images read, letterboxed or augmented, with their targets.

A sample is a pure function of (seed, epoch, index): the same for any number of workers, and after a resume.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from yolo_cli.batch import Batch, Letterbox, TargetCounts
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset import augment
from yolo_cli.dataset.color import draw_planes, random_jitter
from yolo_cli.dataset.decoded_images import DecodedImages
from yolo_cli.dataset.ignore_regions import ANY_CLASS
from yolo_cli.dataset.images import PAD_VALUE, decode_image, fitted_size, letterbox
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.pixel_cache import PixelCache, require_size
from yolo_cli.dataset.sampler import SampleKey, sample_random
from yolo_cli.dataset.shared_memory import SharedIndex, shared_bytes
from yolo_cli.dataset.tiles import Window, choose_window, rows_in_window
from yolo_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class _Targets:
    """Rows of (class, cx, cy, w, h), with the box as fractions of the canvas; rows of class −1 are to be ignored."""

    rows: Float32[np.ndarray, "n 5"]
    letterbox: Letterbox


@dataclass(frozen=True, slots=True)
class _View:
    """An image or a part of it; `size` (height, width) is that of the part."""

    index: int
    size: tuple[int, int]
    window: Window | None = None


class DetectionDataset(Dataset[Batch | UserError]):
    """Batches by the keys of their samples. Images are scaled to fit `fit` (height, width), and augmented with `hyp`.

    With `tile`, augmented samples show tiles of that many pixels of images that are larger.
    """

    def __init__(
        self,
        index: LabelIndex,
        fit: tuple[int, int],
        *,
        hyp: Hyperparameters | None = None,
        seed: int = 0,
        tile: int = 0,
        pixels: PixelCache | None = None,
        decoded: DecodedImages | None = None,
    ) -> None:
        self._index, self._fit, self._hyp, self._tile = index, fit, hyp, tile
        self._seed, self._pixels, self._decoded = seed, pixels, decoded
        self._shared = SharedIndex(index)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._index = self._shared.index

    def __len__(self) -> int:
        return len(self._index)

    def batch(self, keys: list[SampleKey]) -> Batch | UserError:
        """The samples of `keys`, which have the same canvas size.

        If a file disappeared or was damaged since it was indexed, a UserError is returned, and raised by the loader:
        torch would wrap an exception of a worker in a traceback.
        """
        shape = (len(keys), 3, keys[0].height, keys[0].width)
        try:
            images = _memory(math.prod(shape)).reshape(shape)
            made = [self._draw(planes, key) for planes, key in zip(images.numpy(), keys, strict=True)]
            targets = _joined([each.rows for each in made])
        except UserError as error:
            return error
        return Batch(
            images=images,
            targets=targets,
            indices=tuple(key.index for key in keys),
            letterboxes=tuple(each.letterbox for each in made),
            counts=TargetCounts.of(targets),
        )

    __getitems__ = batch  # what a DataLoader calls

    def _draw(self, planes: UInt8[np.ndarray, "3 h w"], key: SampleKey) -> _Targets:
        return self._letterboxed(planes, key) if self._hyp is None else self._augmented(planes, key, self._hyp)

    def _letterboxed(self, planes: UInt8[np.ndarray, "3 h w"], key: SampleKey) -> _Targets:
        canvas = (key.height, key.width)
        height, width = self._size(key.index)
        pixels = self._decode(key.index) if self._pixels is None else self._pixels[key.index]
        image, scaled = letterbox(pixels, canvas, self._fit)
        rows = self._rows(key.index)
        # Cached pixels may be smaller than the file, but the letterbox maps to the file's pixels.
        mapping = Letterbox(
            height,
            width,
            scaled.scale_x * scaled.width / width,
            scaled.scale_y * scaled.height / height,
            scaled.pad_x,
            scaled.pad_y,
        )
        size = np.array([width * mapping.scale_x, height * mapping.scale_y], np.float32)
        pad = np.array([mapping.pad_x, mapping.pad_y], np.float32)
        canvas_size = np.array([key.width, key.height], np.float32)
        rows[:, 1:3] = (rows[:, 1:3] * size + pad) / canvas_size
        rows[:, 3:5] = rows[:, 3:5] * size / canvas_size
        draw_planes(planes, image)
        return _Targets(rows, mapping)

    def _augmented(self, planes: UInt8[np.ndarray, "3 h w"], key: SampleKey, hyp: Hyperparameters) -> _Targets:
        random = sample_random(self._seed, key)
        canvas = (key.height, key.width)
        if key.mosaic and random.random() < hyp.mosaic:
            image, classes, xyxy = self._compose(random, hyp, self._mosaic_images(random, key, key.index), canvas)
            if random.random() < hyp.mixup:
                images = self._mosaic_images(random, key, self._mixup_image(random, key))
                other_image, other_classes, other_xyxy = self._compose(random, hyp, images, canvas)
                ratio = augment.mixup_ratio(random)
                cv2.addWeighted(image, ratio, other_image, 1 - ratio, 0.0, dst=image)
                classes, xyxy = np.concatenate([classes, other_classes]), np.concatenate([xyxy, other_xyxy])
        else:
            image, classes, xyxy = self._compose(random, hyp, [key.index], canvas)
        jitter = random_jitter(random, hyp)
        up, left = (bool(flip) for flip in random.random(2) < (hyp.flipud, hyp.fliplr))
        draw_planes(planes, image, jitter, up=up, left=left)
        xyxy = augment.flip_boxes(xyxy, canvas, up=up, left=left)
        rows = np.empty((len(xyxy), 5), np.float32)
        rows[:, 0] = classes
        rows[:, 1:3] = (xyxy[:, :2] + xyxy[:, 2:]) / 2
        rows[:, 3:5] = xyxy[:, 2:] - xyxy[:, :2]
        rows[:, 1:] /= (key.width, key.height) * 2
        return _Targets(rows, Letterbox(key.height, key.width, 1.0, 1.0, 0.0, 0.0))

    def _mosaic_images(self, random: np.random.Generator, key: SampleKey, first: int) -> list[int]:
        if not key.window:
            return [first, *(int(i) for i in random.integers(len(self), size=3))]
        # Of few images, one would often be drawn twice.
        own = key.window.index(first)
        others = random.choice(len(key.window) - 1, 3, replace=False).tolist()
        return [first, *(key.window[i + (i >= own)] for i in others)]

    def _mixup_image(self, random: np.random.Generator, key: SampleKey) -> int:
        if not key.window:
            return int(random.integers(len(self)))
        return key.window[random.integers(len(key.window))]

    def _compose(
        self, random: np.random.Generator, hyp: Hyperparameters, images: list[int], canvas: tuple[int, int]
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, " n"], Float32[np.ndarray, "n 4"]]:
        """One image, or a mosaic of four, through one random transform: pixels, classes and boxes (xyxy in pixels)."""
        views = [self._view(random, i) for i in images]
        sizes = [view.size for view in views]
        if len(images) == 1:
            source, tiles = canvas, [augment.letterbox_matrix(sizes[0], canvas)]
        else:
            source, tiles = (canvas[0] * 2, canvas[1] * 2), augment.mosaic_matrices(random, sizes, canvas)
        transform = augment.random_transform(random, hyp, source, canvas)
        pixels = np.full((*canvas, 3), PAD_VALUE, np.uint8)
        classes, boxes = [], []
        for view, size, tile in zip(views, sizes, tiles, strict=True):
            matrix = augment.snap_to_pixels(transform @ tile, size)
            if not augment.is_visible(matrix, size, canvas):
                continue
            # Warping blends the edges of an image with what was drawn before.
            repeatable = augment.is_axis_aligned(matrix)
            self._use(view, partial(augment.draw_tile, pixels, matrix=matrix, size=size), repeatable=repeatable)
            rows = self._rows_of(view)
            xyxy, keep = augment.transform_boxes(rows[:, 1:], matrix, size, canvas)
            keep |= (rows[:, 0] < 0) & (xyxy[:, 2:] > xyxy[:, :2]).all(1)  # of a region, any part counts
            classes.append(rows[keep, 0])
            boxes.append(xyxy[keep])
        if not boxes:
            return pixels, np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
        return pixels, np.concatenate(classes), np.concatenate(boxes)

    def _view(self, random: np.random.Generator, i: int) -> _View:
        """What a sample shows of an image: all of it, or with `tile` a part."""
        size = self._size(i)
        if not self._tile:
            return _View(i, size)
        window = choose_window(random, size, self._index.labels(i)[:, 1:], self._tile)
        return _View(i, window.size if window else size, window)

    def _use(self, view: _View, use: Callable[[UInt8[np.ndarray, "h w 3"]], None], *, repeatable: bool) -> None:
        """Call `use` with the pixels of a view. If it is `repeatable`, it may be called twice: the last call counts."""
        i, w = view.index, view.window

        def use_view(image: UInt8[np.ndarray, "h w 3"]) -> None:
            use(image if w is None else image[w.top : w.bottom, w.left : w.right])

        if self._pixels is not None:
            use_view(self._pixels[i])
        elif self._decoded is None:
            use_view(self._decode(i))
        elif repeatable:
            self._decoded.use(i, partial(self._decode, i), use_view)
        else:
            use_view(self._decoded.read(i, partial(self._decode, i)))

    def _rows_of(self, view: _View) -> Float32[np.ndarray, "n 5"]:
        rows = self._rows(view.index)
        return rows if view.window is None else rows_in_window(rows, view.window, self._size(view.index))

    def _rows(self, i: int) -> Float32[np.ndarray, "n 5"]:
        """The labels of an image, and its ignore regions as rows of class −1."""
        rows = self._index.labels(i)
        if self._index.ignored is None:
            return rows
        regions = self._index.ignored_rows(i)
        regions[:, 0] = ANY_CLASS
        return np.concatenate([rows, regions])

    def _size(self, i: int) -> tuple[int, int]:
        height, width = self._index.sizes[i]
        return int(height), int(width)

    def _decode(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image: all of them for validation and tiles, else as many as the largest gain needs.

        They must not depend on the scale at which the image is drawn, because several mosaics use them.
        """
        min_size = None if self._tile or self._hyp is None else self._largest_drawn(i, self._hyp)
        image = decode_image(self._index.content(i), self._index.name(i), min_size)
        if min_size is None:
            require_size(image, self._index, i)
        return image

    def _largest_drawn(self, i: int, hyp: Hyperparameters) -> tuple[int, int]:
        """The (height, width) that an image is drawn at by the largest gain."""
        height, width = fitted_size(self._size(i), self._fit)
        return math.ceil(height * (1 + hyp.scale)), math.ceil(width * (1 + hyp.scale))


def _joined(parts: list[Float32[np.ndarray, "_ 5"]]) -> Float[Tensor, "n 6"]:
    """The rows of all images, each after the number of its image; regions to be ignored come last."""
    numbers = np.repeat(np.arange(len(parts), dtype=np.float32), [len(rows) for rows in parts])
    rows = np.column_stack([numbers, np.concatenate(parts)])
    # Shared here, because torch would drop the batch and wait forever if there were no room while it is sent.
    targets = _memory(rows.nbytes).view(torch.float32).reshape(rows.shape)
    targets.numpy()[:] = rows[np.argsort(rows[:, 1] < 0, kind="stable")]
    return targets


def _memory(size: int) -> UInt8[Tensor, " size"]:
    """Memory for a batch; in a worker it is shared, so that the main process gets the batch without a copy."""
    return torch.empty(size, dtype=torch.uint8) if get_worker_info() is None else shared_bytes(size)
