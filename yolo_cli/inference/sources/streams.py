"""Frames of cameras, network streams and screens, read as they come."""

import importlib
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import cv2
import numpy as np

from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Ended, Frame, Item, Skipped, Source
from yolo_cli.inference.sources.video import captured_frames, open_capture, valid_fps

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each attempt to reconnect
SCREEN_FPS = 30.0


def read_stream(source: Source, stride: int, stopped: Event, warn: Callable[[str], None]) -> Iterator[Item]:
    """Every `stride`-th frame until `stopped` is set. A stream that drops is opened again, a camera is not."""
    number, attempt = 0, 0
    while not stopped.is_set():
        capture = open_capture(source.location)
        if not capture.isOpened() and not number:
            yield Skipped(source, "cannot be opened")
            return
        before = number
        try:
            fps = valid_fps(capture.get(cv2.CAP_PROP_FPS))
            number = yield from captured_frames(capture, source, stride, stopped, fps=fps, first=number + 1)
        finally:
            capture.release()
        attempt = 1 if number > before else attempt + 1
        if stopped.is_set():
            return
        if attempt > len(PAUSES) or isinstance(source.location, int):
            yield Ended(source, number, f"lost after {number} frames")
            return
        if attempt == 1:
            warn(f"{source.name}: no more frames after {number}; reconnecting")
        stopped.wait(PAUSES[attempt - 1])


def read_screen(source: Source, stride: int, stopped: Event) -> Iterator[Item]:
    """Every `stride`-th screenshot until `stopped` is set. Raises UserError where the screen cannot be read."""
    try:
        mss = importlib.import_module("mss")
    except ImportError:
        fix = "pip install 'yolo-cli[screen]'"
        raise UserError("reading the screen needs the mss library", where="--source screen", fix=fix) from None
    try:
        with mss.mss() as grabber:
            monitors = grabber.monitors  # the first entry is all screens together
            number = int(source.location) if isinstance(source.location, int) else 1
            if number >= len(monitors):
                raise UserError(f"there are {len(monitors) - 1} screens", where=f"--source screen:{number}")
            yield from _screenshots(grabber, monitors[number], source, stride, stopped)
    except mss.exception.ScreenShotError as error:
        raise UserError(f"the screen cannot be read ({error})", where="--source screen") from None


def _screenshots(grabber: Any, monitor: Any, source: Source, stride: int, stopped: Event) -> Iterator[Frame]:
    number = 0
    while not stopped.is_set():
        start = time.perf_counter()
        pixels = np.ascontiguousarray(np.asarray(grabber.grab(monitor))[..., :3])
        seconds = time.perf_counter() - start
        number += 1
        if not (number - 1) % stride:
            times = {"read": 1000 * seconds}
            yield Frame(source, pixels, bgr=True, number=number, fps=SCREEN_FPS, milliseconds=times)
        stopped.wait(max(0.0, 1 / SCREEN_FPS - seconds))
