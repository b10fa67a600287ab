"""Batches of samples for training and validation, loaded by worker processes."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader

from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.decoded_images import keep_decoded
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.pixel_cache import build_pixel_cache
from yolo_cli.dataset.sampler import EpochBatchSampler, rect_canvases, shard_numbers
from yolo_cli.dataset.samples import DetectionDataset
from yolo_cli.dataset.shards.epochs import EpochSpool, keep_all
from yolo_cli.dataset.shards.order import DEFAULT_WINDOW
from yolo_cli.dataset.shards.spool import ShardSpool
from yolo_cli.errors import UserError

_VAL_PAD = 0.5  # border of rectangular validation batches, in strides
_NEIGHBORS = 64  # largest `mosaic_window` with a window of shards, where other images would have to be fetched


class BatchLoader(DataLoader[Batch]):
    """A DataLoader of `Batch`es whose epoch can be set. It re-raises a worker's UserError without a traceback."""

    def __init__(
        self,
        dataset: DetectionDataset,
        batches: EpochBatchSampler,
        workers: int,
        *,
        pin_memory: bool = False,
        spool: EpochSpool | ShardSpool | None = None,
    ) -> None:
        self.batches, self._samples, self._spool = batches, dataset, spool
        self._ahead: Iterator[Batch | UserError] | None = None
        super().__init__(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_identity,  # type: ignore[arg-type]
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker if workers else None,
            # Its own generator, because iterating would draw from torch's global one, and so change the weights.
            generator=torch.Generator(),
        )

    def set_epoch(
        self, epoch: int, start_batch: int = 0, weights: Float[np.ndarray, " n"] | None = None, *, mosaic: bool = True
    ) -> None:
        """Set the epoch of the next iteration, its first batch, and new image weights if they are given.

        Without `mosaic`, it has no mosaic and no mixup.
        """
        self._ahead = None
        self.batches.set_epoch(epoch, start_batch, weights, mosaic=mosaic)
        if isinstance(self._spool, EpochSpool):
            self._spool.start(epoch, self.batches.order, self.batches.position(0))

    def load_ahead(self) -> None:
        """Let the workers begin with the epoch that is set, before it is iterated; without workers, do nothing."""
        if self.num_workers:
            self._ahead = super().__iter__()

    def __len__(self) -> int:
        """The number of batches that the next iteration yields."""
        return len(self.batches)

    def batch(self, number: int) -> Batch:
        """A batch of the epoch, made again in this process. Raises UserError where an image has become unreadable."""
        made = self._samples.batch(self.batches.keys(number))
        if isinstance(made, UserError):
            raise made
        return made

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        ahead, self._ahead = self._ahead, None
        for number, batch in enumerate(super().__iter__() if ahead is None else ahead, 1):
            if isinstance(batch, UserError):
                # A new exception: one that is also a local variable forms a cycle with its traceback, which would
                # keep the workers alive until the next garbage collection, perhaps in a process forked by then.
                raise UserError(str(batch))
            if isinstance(self._spool, EpochSpool):
                self._spool.advance(self.batches.position(number))
            yield batch


def train_loader(
    index: LabelIndex,
    *,
    img: tuple[int, int],
    batch: int,
    hyp: Hyperparameters,
    seed: int,
    workers: int,
    rect: bool = False,
    stride: int = 32,
    cache: str = "",
    tile: int = 0,
    shuffle_window: int = -1,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> BatchLoader:
    """Shuffled, augmented batches on canvases of `img` (height, width).

    With `rect`, images of similar aspect ratio share a canvas just large enough for them, without mosaic. `cache` is
    "ram", "disk" or empty. With `tile`, samples show tiles of so many pixels of larger images. `shuffle_window` is the
    number of tar shards that are shuffled together: 0 for all, −1 for 8 if they are at URLs, else all. With a window of
    shards, mosaics are made of 64 neighbors, or `hyp.mosaic_window` if that is less. `batch` is per rank. `pin_memory`
    puts batches into page-locked memory, from which they are copied to a GPU while it computes. Raises UserError where
    the cache has no room, or there are no shards to shuffle.
    """
    canvases = rect_canvases(index.sizes, img, stride, 0.0) if rect else None
    window = DEFAULT_WINDOW * bool(index.remote) if shuffle_window < 0 else shuffle_window
    names, shards = shard_numbers(index) if window else ([], None)
    if window and names == [""]:
        raise UserError("images in files of their own have no shards", where=f"--shuffle-window {window}")
    sampler = EpochBatchSampler(
        len(index),
        batch,
        img,
        seed=seed,
        shuffle=True,
        canvases=canvases,
        window=min(hyp.mosaic_window or _NEIGHBORS, _NEIGHBORS) if window else hyp.mosaic_window,
        shards=shards if window < len(names) else None,
        shard_window=window,
        rank=rank,
        world_size=world_size,
    )
    pixels = build_pixel_cache(index, img, cache, max(workers, 1)) if cache else None
    spool = None
    if index.remote and shards is not None and pixels is None and not rect:
        spool = EpochSpool(names, shards, index.remote, window, index.fingerprint)
        index = replace(index, spool=spool.folder)
    decoded = None
    if pixels is None:
        mosaic, fit = hyp.mosaic > 0 and not rect, None if tile else img
        decoded = keep_decoded(index.sizes, fit, 1 + hyp.scale, mosaic=mosaic, shared=workers > 0)
    dataset = DetectionDataset(index, img, hyp=hyp, seed=seed, tile=tile, pixels=pixels, decoded=decoded)
    loader = BatchLoader(dataset, sampler, workers, pin_memory=pin_memory, spool=spool)
    loader.set_epoch(0)
    return loader


def val_loader(
    index: LabelIndex,
    *,
    img: tuple[int, int],
    batch: int,
    stride: int = 32,
    workers: int = 0,
    rect: bool = True,
    pad: float = _VAL_PAD,
    cache: str = "",
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> BatchLoader:
    """Every image once, letterboxed, without augmentation; `Batch.indices` holds the order.

    With `rect`, canvases are as in `train_loader`, plus `pad` strides of border.
    """
    canvases = rect_canvases(index.sizes, img, stride, pad) if rect else None
    sampler = EpochBatchSampler(len(index), batch, img, canvases=canvases, rank=rank, world_size=world_size)
    pixels = build_pixel_cache(index, img, cache, max(workers, 1)) if cache else None
    spool = keep_all(index.remote, index.fingerprint) if index.remote and pixels is None else None
    index = replace(index, spool=spool.folder) if spool else index
    dataset = DetectionDataset(index, img, pixels=pixels)
    return BatchLoader(dataset, sampler, workers, pin_memory=pin_memory, spool=spool)


def _identity(batch: Batch | UserError) -> Batch | UserError:
    """The dataset makes whole batches, so there is nothing to collate."""
    return batch


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of a terminal, and SIGTERM often every process of a job. Workers end only when the
    # training process ends them: they ignore Ctrl-C, and SIGTERM from anyone else.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()
    # The workers share the cores among themselves.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _exit_on_sigterm_from(parent: int) -> None:
    """End this process when its parent sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
