"""Frames of video files, and what they share with streams: opening a capture and reading from it."""

import math
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import cv2

from yolo_cli.inference.sources.frames import Ended, Frame, Item, Skipped, Source

DEFAULT_FPS, MIN_FPS, MAX_FPS = 25.0, 0.1, 1000.0  # the default replaces a stated rate outside these bounds
_TIMEOUTS = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5_000)


def read_video(source: Source, stride: int, stopped: Event) -> Iterator[Item]:
    """Every `stride`-th frame from the first on, then `Ended`; or `Skipped`."""
    if isinstance(source.location, Path) and not os.path.isfile(source.location):
        yield Skipped(source, "not a file" if os.path.exists(source.location) else "no such file")
        return
    capture = open_capture(source.location)
    if not capture.isOpened():
        yield Skipped(source, "cannot be read as a video (empty, damaged, or a codec that OpenCV lacks)")
        return
    try:
        fps, expected = valid_fps(capture.get(cv2.CAP_PROP_FPS)), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        number = yield from captured_frames(capture, source, stride, stopped, fps=fps / stride)
    finally:
        capture.release()
    yield Ended(source, number, _missing_frames(number, expected))


def captured_frames(
    capture: cv2.VideoCapture, source: Source, stride: int, stopped: Event, *, fps: float, first: int = 1
) -> Generator[Frame, None, int]:
    """Every `stride`-th frame until the capture ends or `stopped` is set. Frames are numbered from `first`.

    Returns the number of the last frame, including those that were passed over.
    """
    number = first - 1
    while not stopped.is_set():
        start = time.perf_counter()
        if not capture.grab():
            break
        number += 1
        if (number - 1) % stride:
            continue  # grabbed only: converting to BGR is what costs
        done, pixels = capture.retrieve()
        if not done:
            break
        milliseconds = {"read": 1000 * (time.perf_counter() - start)}
        yield Frame(source, pixels, bgr=True, number=number, fps=fps, milliseconds=milliseconds)
    return number


def open_capture(location: Path | str | int) -> cv2.VideoCapture:
    """OpenCV's reader of a file, a stream or a camera; see `isOpened`."""
    if isinstance(location, int):
        return cv2.VideoCapture(location)
    return cv2.VideoCapture(opencv_name(location), cv2.CAP_FFMPEG, list(_TIMEOUTS))


def opencv_name(location: Path | str) -> Any:
    """A path or URL as bytes. OpenCV crashes on a string that is not valid UTF-8, which file names may be."""
    return os.fsencode(location)


def valid_fps(fps: float) -> float:
    """The frame rate that a source states, or DEFAULT_FPS where it is out of bounds."""
    return fps if math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS else DEFAULT_FPS


def _missing_frames(number: int, expected: float) -> str:
    if not number:
        return "no frame can be decoded"
    # Some containers only estimate their length. A file that was cut off falls well short of it.
    if math.isfinite(expected) and number < 0.9 * expected - 1:
        return f"ends after {number} of about {round(expected)} frames: the file is damaged or cut off"
    return ""
