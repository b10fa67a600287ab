"""Decoded images that all processes of a loader share, so that the four images of each mosaic are rarely decoded anew.

Images are kept in a ring buffer: a new one takes the place of the oldest. Positions count all bytes that were ever
written, so they only grow. A reader uses an image in place, and then checks that it was not overwritten meanwhile.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt8

from yolo_cli.dataset.images import Image
from yolo_cli.dataset.shared_memory import free_memory, shared_bytes
from yolo_cli.errors import UserError

_LIMIT = 2**30  # largest size of a ring in bytes
_RESERVE = 2**30  # bytes that are left free for batches; a ring takes at most an eighth of the rest
_SHARE = 8
_LOCK_TIMEOUT = 3  # seconds; a process that was killed while it held the lock never releases it
_WRITERS = 256  # largest number of images that are written at the same time


class DecodedImages:
    """The most recently decoded of `count` images, in `capacity` bytes, which other processes share if `shared`.

    It changes how often images are decoded, but no result.
    """

    def __init__(self, count: int, capacity: int, *, shared: bool) -> None:
        self._memory = _zeros(capacity, shared), _zeros((count * 3 + _WRITERS + 1) * 8, shared)
        self._lock = multiprocessing.Lock()
        self._is_disabled = False
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_memory", "_lock", "_is_disabled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        ring, table = (part.numpy() for part in self._memory)
        entries = table.view(np.int64)
        self._ring: UInt8[np.ndarray, " bytes"] = ring
        self._readable = ring.view()
        self._readable.flags.writeable = False
        # Position + 1, height and width of each image; position + 1 of those being written; the end of all.
        self._images: Int64[np.ndarray, "n 3"] = entries[: -_WRITERS - 1].reshape(-1, 3)
        self._writing: Int64[np.ndarray, " writers"] = entries[-_WRITERS - 1 : -1]
        self._end: Int64[np.ndarray, " 1"] = entries[-1:]

    def use(self, i: int, decode: Callable[[], Image], use: Callable[[Image], None]) -> None:
        """Call `use` with image `i`, which is read-only.

        If another process overwrites the image meanwhile, `use` is called again. It must not matter that it was called
        before.
        """
        kept = self._find(i)
        if kept is None:
            use(self._decoded(i, decode))
            return
        use(self._at(*kept))
        if self._find(i) != kept:
            use(self._decoded(i, decode))

    def read(self, i: int, decode: Callable[[], Image]) -> Image:
        """Image `i`, copied from the ring or newly decoded."""
        kept = self._find(i)
        if kept is not None:
            image = self._at(*kept).copy()
            if self._find(i) == kept:
                return image
        return self._decoded(i, decode)

    def _at(self, place: int, height: int, width: int) -> Image:
        start = place % len(self._ring)
        return self._readable[start : start + height * width * 3].reshape(height, width, 3)

    def _decoded(self, i: int, decode: Callable[[], Image]) -> Image:
        image = decode()
        self._keep(i, image)
        image.flags.writeable = False
        return image

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock. After a timeout, this process does without the ring from then on."""
        held = not self._is_disabled and self._lock.acquire(timeout=_LOCK_TIMEOUT)
        self._is_disabled = not held
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _find(self, i: int) -> tuple[int, int, int] | None:
        """Position, height and width of an image, if it is kept."""
        with self._locked() as held:
            (place, height, width), end = self._images[i].tolist(), self._end.item()
        return (place - 1, height, width) if held and place > 0 and end - (place - 1) <= len(self._ring) else None

    def _keep(self, i: int, image: Image) -> None:
        size, writing = len(self._ring), self._writing
        if image.nbytes > size // 2:
            return
        with self._locked() as held:
            place = self._end.item()
            if place % size + image.nbytes > size:  # not in one piece
                place += size - place % size
            slot = int(writing.argmin())
            oldest = int(writing[writing > 0].min(initial=place + 1)) - 1
            # A process that was stopped while it wrote would later write over what is newer.
            if not held or writing[slot] or place + image.nbytes - oldest > size:
                return
            self._end[0], writing[slot] = place + image.nbytes, place + 1
        start = place % size
        self._ring[start : start + image.nbytes] = image.reshape(-1)
        with self._locked() as held:
            if held:
                self._images[i] = place + 1, *image.shape[:2]
                writing[slot] = 0


def keep_decoded(
    sizes: Int32[np.ndarray, "n 2"], fit: tuple[int, int] | None, gain: float, *, mosaic: bool, shared: bool
) -> DecodedImages | None:
    """A ring for images of `sizes` (height, width); None if there is no room.

    Args:
        sizes: of the image files.
        fit: the (height, width) that images are scaled to fit; None if they are decoded in full.
        gain: the largest factor by which they are drawn larger than `fit`.
        mosaic: whether images are used several times in an epoch. If not, there is a ring only if it holds all images.
        shared: whether other processes use it as well.
    """
    largest = sizes.astype(np.float64)
    if fit is not None:
        # Decoders shrink by whole factors, so a side is less than twice as long as needed.
        largest = np.minimum(largest, 2 * gain * largest * (np.array(fit) / largest).min(1, keepdims=True) + 4)
    needed = int(largest.prod(1).sum()) * 3
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of this machine, each with a ring
    free = (free_memory(shared=shared) - _RESERVE) // _SHARE // processes - 24 * len(sizes)
    room = min(needed, _LIMIT, free)
    if room <= 0 or (room < needed and not mosaic):
        return None
    try:
        return DecodedImages(len(sizes), room, shared=shared)
    except UserError:
        return None


def _zeros(size: int, shared: bool) -> torch.Tensor:
    return shared_bytes(size) if shared else torch.zeros(size, dtype=torch.uint8)
