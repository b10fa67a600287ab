"""`--cache ram|disk`: every image decoded once, at the size that training needs, in memory that all workers share."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8

from yolo_cli.dataset.images import decode_image, fitted_size
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.shared_memory import free_memory
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_path
from yolo_cli.io.cache_dir import user_cache_folder

FORMAT = 1  # of the file's content; raise it with any change of the pixels

_RESERVE = 2**28  # bytes of memory or disk left free


class PixelCache:
    """Decoded RGB images; `cache[i]` is a read-only view of image i, (h, w, 3) uint8."""

    def __init__(self, shapes: Int64[np.ndarray, "n 2"], memory: torch.Tensor | None, file: Path | None) -> None:
        self._shapes = shapes
        self._offsets = _offsets(shapes)
        self._memory, self._file = memory, file
        self._pixels = self._open()

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        height, width = self._shapes[i]
        return self._pixels[self._offsets[i] : self._offsets[i + 1]].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map pickles as its whole content, so a worker that is not forked opens the map itself.
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = self._open()

    def _open(self) -> UInt8[np.ndarray, " bytes"]:
        if self._memory is not None:
            view = self._memory.numpy()
            view.flags.writeable = False
            return view
        return np.memmap(str(self._file), np.uint8, "r")


def build_pixel_cache(index: LabelIndex, img: tuple[int, int], kind: str, threads: int) -> PixelCache:
    """Decode all images of an index, scaling those larger than `img` (height, width) down to fit it.

    With `kind` "ram" they are kept in shared memory, with "disk" in a file of the user's cache folder, which later runs
    use as long as no image has changed. Raises UserError where there is not enough room.
    """
    shapes = _stored_shapes(index, img)
    size = int(_offsets(shapes)[-1])
    if kind == "ram":
        _require_room(size, free_memory(), "memory", "use --cache disk, or none")
        memory = torch.empty(size, dtype=torch.uint8).share_memory_()
        _fill(memory.numpy(), index, shapes, threads)
        return PixelCache(shapes, memory, None)
    if kind != "disk":
        raise UserError(f"{kind!r} is not a kind of cache", where="--cache", fix="use ram or disk")
    file = user_cache_folder() / "pixels" / f"{_key(index, img)}.rgb"
    if not (file.is_file() and file.stat().st_size == size):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(file.parent).free
            _require_room(size, room, str(file.parent), "set YOLO_CACHE_DIR to a folder with more room")
            with atomic_path(file) as part:
                _reserve(part, size)
                pixels = np.memmap(part, np.uint8, "r+", shape=(size,))
                _fill(pixels, index, shapes, threads)
                pixels.flush()
        except OSError as error:
            raise UserError(
                f"cannot be written ({error.strerror})", where=file, fix="set YOLO_CACHE_DIR to another folder"
            ) from None
    return PixelCache(shapes, None, file)


def _stored_shapes(index: LabelIndex, img: tuple[int, int]) -> Int64[np.ndarray, "n 2"]:
    shapes = [
        fitted_size((height, width), img) if height > img[0] or width > img[1] else (height, width)
        for height, width in index.sizes.tolist()
    ]
    return np.array(shapes, np.int64)


def _offsets(shapes: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n1"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(shapes.prod(1) * 3)])


def _fill(
    pixels: UInt8[np.ndarray, " bytes"], index: LabelIndex, shapes: Int64[np.ndarray, "n 2"], threads: int
) -> None:
    offsets = _offsets(shapes)

    def decode(i: int) -> None:
        image = decode_image(index.content(i), index.name(i))
        require_size(image, index, i)
        height, width = int(shapes[i, 0]), int(shapes[i, 1])
        if (height, width) != image.shape[:2]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        pixels[offsets[i] : offsets[i + 1]] = image.reshape(-1)

    # Threads suffice: decoders and resizing release the GIL.
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for _ in pool.map(decode, range(len(index))):
            pass


def require_size(image: UInt8[np.ndarray, "h w 3"], index: LabelIndex, i: int) -> None:
    """Raise UserError where an image's size has changed since it was indexed: its boxes would be wrong."""
    height, width = index.sizes[i]
    if image.shape[:2] != (height, width):
        raise UserError(
            f"was {width}×{height} pixels and is now {image.shape[1]}×{image.shape[0]}",
            where=index.name(i),
            fix="start again, and do not change the dataset during a run",
        )


def _key(index: LabelIndex, img: tuple[int, int]) -> str:
    digest = hashlib.blake2b(f"{FORMAT} {img} {index.sizes.shape}".encode(), digest_size=16)
    for i in range(len(index)):
        name = index.name(i)
        digest.update(f"{name}\0{index.state(i)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _reserve(file: Path, size: int) -> None:
    # On a full disk this raises an error; writing through the map later would end the process by a signal.
    with open(file, "wb") as out:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, size)
        else:
            out.truncate(size)


def _require_room(size: int, free: int, where: str, fix: str) -> None:
    if size + _RESERVE > free:
        raise UserError(
            f"the decoded images take {size / 2**30:.1f} GiB, but {where} has only {free / 2**30:.1f} GiB free",
            where="--cache",
            fix=fix,
        )
