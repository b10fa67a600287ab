"""Video files, frame by frame."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from yolo_cli.detect.frames import Ended, Frame, Item, Skipped, Source

DEFAULT_FPS = 25.0
_TIMEOUTS = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5_000)


def read_video(source: Source, stride: int) -> Iterator[Item]:
    """Every `stride`-th frame from the first on, none lost, then how it ended."""
    if isinstance(source.location, Path) and not source.location.is_file():
        yield Skipped(source, "no such file")
        return
    capture = open_capture(source.location)
    if not capture.isOpened():
        yield Skipped(source, "cannot be read as a video (empty, damaged, or a codec that OpenCV lacks)")
        return
    try:
        fps, expected = sensible_rate(capture.get(cv2.CAP_PROP_FPS)), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        number = 0
        while True:
            start = time.perf_counter()
            # Frames between are stepped over without being converted.
            if not capture.grab():
                break
            number += 1
            if (number - 1) % stride:
                continue
            done, pixels = capture.retrieve()
            if not done:
                break
            spent = {"read": 1000 * (time.perf_counter() - start)}
            yield Frame(source, pixels, bgr=True, number=number, fps=fps / stride, milliseconds=spent)
    finally:
        capture.release()
    yield Ended(source, number, _shortfall(number, expected))


def open_capture(location: Path | str | int) -> cv2.VideoCapture:
    """OpenCV's reader of a file, a stream or a camera; whether it opened, it says itself."""
    if isinstance(location, int):
        return cv2.VideoCapture(location)
    return cv2.VideoCapture(str(location), cv2.CAP_FFMPEG, list(_TIMEOUTS))


def sensible_rate(fps: float) -> float:
    """Frames a second as a source states them, or DEFAULT_FPS where that is nonsense."""
    return fps if math.isfinite(fps) and 0.1 <= fps <= 1000 else DEFAULT_FPS


def _shortfall(number: int, expected: float) -> str:
    if not number:
        return "no frame of it can be decoded"
    # Some containers only estimate their length; a file that was cut off falls well short of it.
    if math.isfinite(expected) and number < 0.9 * expected - 1:
        return f"ends after {number} of about {round(expected)} frames: the file is damaged or cut off"
    return ""
