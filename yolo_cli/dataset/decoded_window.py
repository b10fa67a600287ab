"""The decoded images of the window that a process takes its mosaics from, so that each is decoded once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

LIMIT = 2**28  # bytes per process; images that no longer fit are decoded for each use

Image = UInt8[np.ndarray, "h w 3"]


class DecodedWindow:
    """Decoded images of one window at a time. It changes which images are decoded again, but no result."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._window: tuple[int, ...] = ()
        self._images: dict[int, Image] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_limit"])  # type: ignore[misc]

    @property
    def is_used(self) -> bool:
        """Whether a window was entered, and images are kept."""
        return bool(self._window)

    def enter(self, window: tuple[int, ...]) -> None:
        """Keep the images of this window from now on, and drop those of another."""
        if window != self._window:
            self._window, self._images, self._bytes = window, {}, 0

    def read(self, i: int, decode: Callable[[], Image]) -> Image:
        """Image `i`, decoded now or earlier. It is read-only."""
        image = self._images.get(i)
        if image is None:
            image = decode()
            image.flags.writeable = False
            if self._bytes + image.nbytes <= self._limit:
                self._images[i] = image
                self._bytes += image.nbytes
        return image
