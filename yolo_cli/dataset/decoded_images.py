"""Decoded images that all processes of a loader share, so that the four images of each mosaic are rarely decoded anew.

The images are in a ring of memory: a new one takes the place of the oldest. Positions count the bytes ever written, so
they only grow. A reader uses an image where it lies, and looks afterwards whether it was overwritten meanwhile.
"""

import multiprocessing
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt8

from yolo_cli.dataset.shared_memory import free_memory

_LIMIT = 2**30  # bytes of memory for a ring at most
_SHARE = 8  # and at most so much of what is free
_WRITERS = 256  # images that are written at the same time at most

Image = UInt8[np.ndarray, "h w 3"]


class DecodedImages:
    """The most recently decoded of `count` images, in `capacity` bytes, which other processes share if `shared`.

    It changes how often images are decoded, but no result.
    """

    def __init__(self, count: int, capacity: int, *, shared: bool) -> None:
        self._ring = _zeros(capacity, shared)
        self._table = _zeros((count * 3 + _WRITERS + 1) * 8, shared)
        self._lock = multiprocessing.Lock()

    def use(self, i: int, decode: Callable[[], Image], use: Callable[[Image], None]) -> None:
        """Call `use` with image `i`, read-only, and in the rare case that it is overwritten meanwhile, once more.

        So `use` must have the same effect when it is called twice.
        """
        kept = self._find(i)
        if kept is None:
            image = decode()
            self._keep(i, image)
            use(image)
            return
        place, height, width = kept
        start = place % len(self._ring)
        image = self._ring.numpy()[start : start + height * width * 3].reshape(height, width, 3)
        image.flags.writeable = False
        use(image)
        if self._find(i) != kept:
            use(decode())

    def _entries(self) -> tuple[Int64[np.ndarray, "n 3"], Int64[np.ndarray, " writers"], Int64[np.ndarray, " 1"]]:
        """Position + 1, height and width of each image; position + 1 of those being written; the end of all."""
        table = self._table.numpy().view(np.int64)
        return table[: -_WRITERS - 1].reshape(-1, 3), table[-_WRITERS - 1 : -1], table[-1:]

    def _find(self, i: int) -> tuple[int, int, int] | None:
        """Position, height and width of an image, if it is kept."""
        images, _, end = self._entries()
        with self._lock:
            place, height, width = images[i].tolist()
            kept = place > 0 and int(end[0]) - (place - 1) <= len(self._ring)
        return (place - 1, height, width) if kept else None

    def _keep(self, i: int, image: Image) -> None:
        images, writing, end = self._entries()
        size = len(self._ring)
        if image.nbytes > size // 2:
            return
        with self._lock:
            place = int(end[0])
            if place % size + image.nbytes > size:  # not in one piece
                place += size - place % size
            slot = int(writing.argmin())
            oldest = int(writing[writing > 0].min(initial=place + 1)) - 1
            # A process that was stopped while it wrote would later write over what is newer.
            if writing[slot] or place + image.nbytes - oldest > size:
                return
            end[0], writing[slot] = place + image.nbytes, place + 1
        start = place % size
        self._ring.numpy()[start : start + image.nbytes] = image.reshape(-1)
        with self._lock:
            images[i] = place + 1, *image.shape[:2]
            writing[slot] = 0


def keep_decoded(
    sizes: Int32[np.ndarray, "n 2"], fit: tuple[int, int] | None, gain: float, *, mosaic: bool, shared: bool
) -> DecodedImages | None:
    """Room for decoded images of `sizes` (height, width), each drawn at `gain` times the size that fits `fit` at most.

    Without `fit`, they are drawn from all of their pixels. Without `mosaic`, each is used once in an epoch, so they are
    kept only where there is room for all.
    """
    largest = sizes.astype(np.float64)
    if fit is not None:
        # Decoders shrink by whole factors, and so leave less than twice of what is needed.
        largest = np.minimum(largest, 2 * gain * largest * (np.array(fit) / largest).min(1, keepdims=True) + 4)
    needed = int(largest.prod(1).sum()) * 3
    room = min(needed, _LIMIT, free_memory() // _SHARE)
    return DecodedImages(len(sizes), room, shared=shared) if mosaic or room == needed else None


def _zeros(size: int, shared: bool) -> torch.Tensor:
    if not shared:
        return torch.zeros(size, dtype=torch.uint8)
    # share_memory_() would write all of it once.
    return torch.tensor([], dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
