"""Video files, frame by frame."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from yolo_cli.inference.sources.frames import Ended, Frame, Item, Skipped, Source

DEFAULT_FPS, MIN_FPS, MAX_FPS = 25.0, 0.1, 1000.0  # a second; a stated rate beyond these is none
_TIMEOUTS = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5_000)


def read_video(source: Source, stride: int) -> Iterator[Item]:
    """Every `stride`-th frame from the first on, none lost, then how it ended."""
    if isinstance(source.location, Path) and not os.path.isfile(source.location):
        yield Skipped(source, "is no file" if os.path.exists(source.location) else "no such file")
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
    return cv2.VideoCapture(opencv_name(location), cv2.CAP_FFMPEG, list(_TIMEOUTS))


def opencv_name(location: Path | str) -> Any:
    """A path or URL for OpenCV, which accepts bytes and crashes on a string that is not UTF-8, as file names may be."""
    return os.fsencode(location)


def sensible_rate(fps: float) -> float:
    """Frames a second as a source states them, or DEFAULT_FPS where that is nonsense."""
    return fps if math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS else DEFAULT_FPS


def _shortfall(number: int, expected: float) -> str:
    if not number:
        return "no frame of it can be decoded"
    # Some containers only estimate their length; a file that was cut off falls well short of it.
    if math.isfinite(expected) and number < 0.9 * expected - 1:
        return f"ends after {number} of about {round(expected)} frames: the file is damaged or cut off"
    return ""
