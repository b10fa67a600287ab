"""Which images form each batch: a pure function of (seed, epoch), so that a run can be resumed at any batch."""

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Int32, Int64
from torch.utils.data import Sampler

from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.shards.order import window_order

# Independent random streams of one seed.
_SAMPLE, _ORDER, _SIZE = 0, 1, 2
_MULTI_SCALE = (0.5, 1.5)

_WINDOW = 64  # images that form mosaics together

RECT_GROUP = 16  # images per rectangular canvas: the batch size that published figures were measured with


@dataclass(frozen=True, slots=True)
class SampleKey:
    """What a sample depends on besides the seed: epoch, image, and canvas (height, width).

    `repeat` counts the image's earlier occurrences in the epoch, which weighted sampling causes. Without it, all
    occurrences would be augmented in the same way. `mosaic` allows mosaic and mixup, with other images of `window`, or
    of the whole dataset if that is empty.
    """

    epoch: int
    index: int
    repeat: int
    height: int
    width: int
    mosaic: bool = False
    window: tuple[int, ...] = ()


def sample_random(seed: int, key: SampleKey) -> np.random.Generator:
    """The random generator for a sample's augmentation."""
    return _random(seed, key.epoch, _SAMPLE, key.index, key.repeat)


def multi_scale_size(seed: int, epoch: int, step: int, img: tuple[int, int], stride: int) -> tuple[int, int]:
    """The (height, width) to train a step at: `img` times a factor from 0.5 to 1.5, in multiples of the stride."""
    return _scaled_size(img, _random(seed, epoch, _SIZE, step).uniform(*_MULTI_SCALE), stride)


def largest_multi_scale_size(img: tuple[int, int], stride: int) -> tuple[int, int]:
    """The largest (height, width) that `multi_scale_size` returns."""
    return _scaled_size(img, _MULTI_SCALE[1], stride)


def _scaled_size(img: tuple[int, int], gain: float, stride: int) -> tuple[int, int]:
    height, width = (max(round(side * gain / stride), 1) * stride for side in img)
    return height, width


def rect_canvases(
    sizes: Int32[np.ndarray, "n 2"], img: tuple[int, int], stride: int, pad: float
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 2"]]:
    """The images in order of aspect ratio, and the canvas (height, width) of each in that order.

    RECT_GROUP neighbors in the order share the smallest canvas that holds them when each is scaled to fit `img`, plus
    `pad` strides, rounded up to the stride. The groups do not depend on the batch size, and so no result does.
    """
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable")
    gain = np.minimum(img[0] / sizes[:, 0], img[1] / sizes[:, 1])
    fitted = np.maximum(np.round(sizes * gain[:, None]), 1)[order]
    starts = np.arange(0, len(order), RECT_GROUP)
    largest = np.repeat(np.maximum.reduceat(fitted, starts), RECT_GROUP, axis=0)[: len(order)]
    return order, (np.ceil(largest / stride + pad) * stride).astype(np.int64)


def rect_batches(canvases: Int64[np.ndarray, "n 2"], batch: int) -> Int64[np.ndarray, "batches 2"]:
    """First position and end of each batch: at most `batch` neighbors that share a canvas size."""
    changes = np.flatnonzero((canvases[1:] != canvases[:-1]).any(1)) + 1
    edges = [0, *changes.tolist(), len(canvases)]
    slots = [(i, min(i + batch, end)) for start, end in pairwise(edges) for i in range(start, end, batch)]
    return np.array(slots, np.int64).reshape(-1, 2)


def class_weights(index: LabelIndex, nc: int) -> Float[np.ndarray, " nc"]:
    """Inverse frequency of each class among the boxes, summing to 1; a class without boxes counts as one box."""
    weights = 1.0 / np.maximum(np.bincount(index.classes, minlength=nc)[:nc], 1)
    return np.asarray(weights / weights.sum())


def image_weights(
    index: LabelIndex, nc: int, weights: Float[np.ndarray, " nc"] | None = None
) -> Float[np.ndarray, " n"]:
    """Sampling weight of each image: the sum of its boxes' class weights (`class_weights` times `weights`).

    `weights` is a further factor per class, such as (1 − AP)². Images without boxes get 0.
    """
    per_class = class_weights(index, nc) * (1.0 if weights is None else weights)
    image_of_box = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    return np.bincount(image_of_box, per_class[index.classes], minlength=len(index))


def shard_numbers(index: LabelIndex) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    """The shards in the order of their images, and the number of each image's shard in that list.

    Images that are files of their own count as in one shard without a name.
    """
    found: dict[str, int] = {}
    numbers = [found.setdefault(index.shard(i), len(found)) for i in range(len(index))]
    return list(found), np.array(numbers, np.int64)


class EpochBatchSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys for one epoch after another.

    `canvases` = (order, sizes) from `rect_canvases` makes the batches rectangular; shuffling then permutes whole
    batches, and `weights` are ignored. Otherwise `weights` draws images with replacement. Rank `rank` of `world_size`
    takes its share of one common order; with `shuffle`, shares are padded from the start of the order to equal length.
    With `shards`, the shard number of each image, the order needs only about `shard_window` shards at a time.

    Mosaics are made of images among `window` neighbors in the order, or of all images if it is 0. Which images these
    are depends on the order only, not on the batch size or the number of ranks or workers.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        canvas: tuple[int, int],
        *,
        seed: int = 0,
        shuffle: bool = False,
        canvases: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 2"]] | None = None,
        weights: Float[np.ndarray, " n"] | None = None,
        window: int = 0,
        shards: Int64[np.ndarray, " n"] | None = None,
        shard_window: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch = batch
        self._count, self._canvas = count, canvas
        self._window = window
        self._shards, self._shard_window = shards, shard_window
        self._seed, self._shuffle, self._canvases = seed, shuffle, canvases
        self._batches = rect_batches(canvases[1], batch) if canvases is not None else None
        self._weights, self._rank, self._world_size = weights, rank, world_size
        self._epoch, self._start, self._mosaic = 0, 0, False

    def set_epoch(
        self, epoch: int, start_batch: int = 0, weights: Float[np.ndarray, " n"] | None = None, *, mosaic: bool = False
    ) -> None:
        """Set the epoch of the next iteration, its first batch, and new image weights if they are given.

        With `mosaic`, its samples may be mosaics, as the hyperparameters say; rectangular batches have none.
        """
        self._epoch, self._start = epoch, start_batch
        self._mosaic = mosaic and self._canvases is None
        if weights is not None:
            self._weights = weights

    def position(self, batches: int) -> int:
        """The position in the order of all ranks that so many batches of the next iteration reach."""
        return (self._start + batches) * self.batch * self._world_size

    def order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        """The images of an epoch, those of all ranks, in their order, which rectangular batches do not follow."""
        random = _random(self._seed, epoch, _ORDER)
        drawn = None
        if self._weights is not None and self._drawn():
            drawn = random.choice(self._count, self._count, p=self._weights / self._weights.sum())
        if self._shards is not None:
            return window_order(self._shards, self._shard_window, random, drawn)
        if drawn is not None:
            return drawn
        return random.permutation(self._count) if self._shuffle else np.arange(self._count)

    def _drawn(self) -> bool:
        """Whether images are drawn with replacement."""
        return self._weights is not None and bool(self._weights.sum() > 0)

    def __len__(self) -> int:
        """The number of batches that the next iteration yields."""
        if self._batches is None:
            batches = math.ceil(len(self._positions(self._count)) / self.batch)
        else:
            batches = len(self._positions(len(self._batches)))
        return max(batches - self._start, 0)

    def keys(self, number: int) -> list[SampleKey]:
        """The keys of one batch of the epoch."""
        from_there = copy(self)
        from_there._start = number
        return next(iter(from_there))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        if self._canvases is None or self._batches is None:
            yield from self._fixed_size()
        else:
            yield from self._rectangular(*self._canvases, self._batches)

    def _fixed_size(self) -> Iterator[list[SampleKey]]:
        order = self.order(self._epoch)
        # Without weights, every image occurs once.
        repeats = _earlier_occurrences(order) if self._drawn() else np.broadcast_to(np.int64(0), len(order))
        own = self._own(self._count)
        window = _Windows(order, self._window if self._mosaic else 0)
        for start in range(self._start * self.batch, len(own), self.batch):
            yield [
                SampleKey(self._epoch, int(order[i]), int(repeats[i]), *self._canvas, self._mosaic, window.at(int(i)))
                for i in own[start : start + self.batch]
            ]

    def _rectangular(
        self,
        order: Int64[np.ndarray, " n"],
        sizes: Int64[np.ndarray, "n 2"],
        batches: Int64[np.ndarray, "batches 2"],
    ) -> Iterator[list[SampleKey]]:
        count = len(batches)
        sequence = _random(self._seed, self._epoch, _ORDER).permutation(count) if self._shuffle else np.arange(count)
        for start, end in batches[sequence[self._own(count)[self._start :]]]:
            height, width = (int(side) for side in sizes[start])
            yield [SampleKey(self._epoch, int(i), 0, height, width) for i in order[start:end]]

    def _own(self, count: int) -> Int[np.ndarray, " k"]:
        """This rank's positions in an order of `count`."""
        positions = self._positions(count)
        return np.arange(positions.start, positions.stop, positions.step) % max(count, 1)

    def _positions(self, count: int) -> range:
        end = math.ceil(count / self._world_size) * self._world_size if self._shuffle else count
        return range(self._rank, end, self._world_size)


class _Windows:
    """Splits an order of images into windows. Mosaics are made of the images of one window.

    Each block of `size` neighbors has k windows of about _WINDOW images; every k-th position belongs to the same one.
    So a batch has images of many windows, and if the number of ranks divides k, each rank needs its own images only.
    The last block also has the remaining images, so its size is up to 2 × `size` − 1.
    """

    def __init__(self, order: Int[np.ndarray, " n"], size: int) -> None:
        self._order, self._size = order, size
        self._blocks = len(order) // size if size else 0
        self._lanes = max(size // _WINDOW, 1)
        self._block, self._windows = -1, list[tuple[int, ...]]()

    def at(self, position: int) -> tuple[int, ...]:
        """The images of the window that a position is in; empty where one block is the whole order."""
        if self._blocks < 2:
            return ()
        block = min(position // self._size, self._blocks - 1)
        start = block * self._size
        if block != self._block:
            end = start + self._size if block + 1 < self._blocks else None
            images = self._order[start:end]
            self._block, self._windows = block, [tuple(images[k :: self._lanes].tolist()) for k in range(self._lanes)]
        return self._windows[(position - start) % self._lanes]


def _earlier_occurrences(order: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each position, how many times its value occurs before it."""
    by_value = np.argsort(order, kind="stable")
    in_order = order[by_value]
    first = np.searchsorted(in_order, in_order, side="left")
    earlier = np.empty(len(order), np.int64)
    earlier[by_value] = np.arange(len(order)) - first
    return earlier


def _random(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed % 2**64, *stream])))
