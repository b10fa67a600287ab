"""One pass over the pixels of a split, on a decode of reduced size: hashes, a thumbnail, light and sharpness."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from jaxtyping import Float32, Int8, UInt8

from yolo_cli.data_checks.exif import ring_contrasts
from yolo_cli.dataset.image_header import jpeg_orientation, png_orientation
from yolo_cli.dataset.images import decode_image
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.errors import UserError

THUMB = 32  # pixels per side
_DECODED = (192, 192)  # height, width that a reduced decode keeps at least
_SHARPNESS_SIDE = 256  # longer side at which sharpness is measured, so that it does not depend on the resolution
_DIGEST = 16
_ROWS_PER_TASK = 32
_CUT_OFF = "premature end"  # libjpeg's words for missing data


@dataclass(frozen=True)
class ImageStats:
    """Statistics by row of the index. Rows of images that cannot be decoded are zero and False in `decoded`."""

    decoded: np.ndarray  # bool
    content: UInt8[np.ndarray, "n 16"]  # digest of the file
    pixels: UInt8[np.ndarray, "n 16"]  # digest of size and reduced pixels
    thumbs: UInt8[np.ndarray, "n side side"]  # luma
    brightness: Float32[np.ndarray, " n"]  # 99th percentile of the luma, 0 … 255
    contrast: Float32[np.ndarray, " n"]  # standard deviation of the luma, 0 … 255
    sharpness: Float32[np.ndarray, " n"]  # standard deviation of the Laplacian
    orientation: Int8[np.ndarray, " n"]  # EXIF, 1 … 8
    turns: Float32[
        np.ndarray, "n 2"
    ]  # box contrast as labeled, and if labels ignore the orientation; nan if not turned
    cut_off: dict[int, str]  # rows whose image data is incomplete, with the decoder's message
    damaged: dict[int, str]  # rows with another flaw


def measure_images(index: LabelIndex, *, threads: int, advance: Callable[[], None]) -> ImageStats:
    """Measure all images of an index; `advance` is called once per image. Decoding runs in `threads` threads."""
    count = len(index)
    stats = ImageStats(
        decoded=np.zeros(count, dtype=bool),
        content=np.zeros((count, _DIGEST), np.uint8),
        pixels=np.zeros((count, _DIGEST), np.uint8),
        thumbs=np.zeros((count, THUMB, THUMB), np.uint8),
        brightness=np.zeros(count, np.float32),
        contrast=np.zeros(count, np.float32),
        sharpness=np.zeros(count, np.float32),
        orientation=np.ones(count, np.int8),
        turns=np.full((count, 2), np.nan, np.float32),
        cut_off={},
        damaged={},
    )

    def measure(rows: range) -> range:
        for row in rows:
            _measure(index, row, stats)
        return rows

    tasks = (range(start, min(start + _ROWS_PER_TASK, count)) for start in range(0, count, _ROWS_PER_TASK))
    for rows in _in_threads(measure, tasks, max(threads, 1)):
        for _ in rows:
            advance()
    return stats


def _in_threads(work: Callable[[range], range], tasks: Iterator[range], threads: int) -> Iterator[range]:
    """Results in order. Few tasks wait at a time, so that Ctrl-C ends this at once."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[range]] = [pool.submit(work, task) for task in islice(tasks, 2 * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, task) for task in islice(tasks, 1)]


def _measure(index: LabelIndex, row: int, stats: ImageStats) -> None:
    flaws: list[str] = []
    try:
        data = index.content(row)
        stats.content[row] = _digest(data)
        image = decode_image(data, index.path(row), _DECODED, flaws)
    except UserError as error:
        stats.cut_off[row] = error.what
        return
    if flaws:
        (stats.cut_off if any(_CUT_OFF in flaw for flaw in flaws) else stats.damaged)[row] = flaws[0]
    stats.decoded[row] = True
    stats.pixels[row] = _digest(index.sizes[row].tobytes() + np.ascontiguousarray(image).tobytes())
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    stats.thumbs[row] = cv2.resize(luma, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    histogram = np.bincount(luma.ravel(), minlength=256)
    stats.brightness[row] = np.searchsorted(np.cumsum(histogram), 0.99 * luma.size)
    stats.contrast[row] = cv2.meanStdDev(luma)[1].item()
    stats.sharpness[row] = _sharpness(luma)
    orientation = jpeg_orientation(data) if data.startswith(b"\xff\xd8") else _orientation_of_png(data)
    stats.orientation[row] = orientation
    if orientation != 1:
        stats.turns[row] = ring_contrasts(image, index.labels(row)[:, 1:], orientation)


def _orientation_of_png(data: bytes) -> int:
    return png_orientation(data) if data.startswith(b"\x89PNG") else 1


def _digest(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(data, digest_size=_DIGEST).digest(), np.uint8)


def _sharpness(luma: UInt8[np.ndarray, "h w"]) -> float:
    gain = _SHARPNESS_SIDE / max(luma.shape)
    if gain < 1:
        size = (max(round(luma.shape[1] * gain), 1), max(round(luma.shape[0] * gain), 1))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_32F))[1].item()
