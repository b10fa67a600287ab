"""Cameras, streams and the screen: read as fast as they come, opened again when they drop."""

import importlib
import time
from collections.abc import Callable

import cv2
import numpy as np

from yolo_cli.errors import UserError
from yolo_cli.inference.prefetch import Feed
from yolo_cli.inference.sources.frames import Ended, Frame, Skipped, Source
from yolo_cli.inference.sources.video import open_capture, sensible_rate

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each attempt to open a lost stream again
SCREEN_FPS = 30.0


def read_live(source: Source, feed: Feed, stride: int, warn: Callable[[str], None]) -> None:
    """Put every `stride`-th frame of a stream or camera into the feed until it is stopped, or the stream stays away."""
    number, attempt = 0, 0
    while not feed.stopped.is_set():
        capture = open_capture(source.location)
        if not capture.isOpened() and not number:
            feed.put(Skipped(source, "cannot be opened"))
            return
        before = number
        number = _pump(capture, source, feed, stride, number)
        capture.release()
        attempt = 1 if number > before else attempt + 1
        if feed.stopped.is_set():
            break
        if attempt > len(PAUSES) or isinstance(source.location, int):
            feed.put(Ended(source, number, f"lost after {number} frames"))
            return
        if attempt == 1:
            warn(f"{source.name}: no more frames after {number}; it is opened again")
        feed.stopped.wait(PAUSES[attempt - 1])


def _pump(capture: cv2.VideoCapture, source: Source, feed: Feed, stride: int, number: int) -> int:
    fps = sensible_rate(capture.get(cv2.CAP_PROP_FPS))
    while not feed.stopped.is_set():
        start = time.perf_counter()
        if not capture.grab():
            break
        number += 1
        if (number - 1) % stride:
            continue
        done, pixels = capture.retrieve()
        if not done:
            break
        spent = {"read": 1000 * (time.perf_counter() - start)}
        feed.put(Frame(source, pixels, bgr=True, number=number, fps=fps, milliseconds=spent))
    return number


def read_screen(source: Source, feed: Feed, stride: int) -> None:
    """Put pictures of a screen into the feed until it is stopped. Raises UserError where there is no screen."""
    try:
        mss = importlib.import_module("mss")
    except ImportError:
        fix = "pip install 'yolo-cli[screen]'"
        raise UserError("reading the screen needs the mss library", where="--source screen", fix=fix) from None
    try:
        with mss.mss() as grabber:
            monitors = grabber.monitors
            number = int(source.location) if isinstance(source.location, int) else 1
            if number >= len(monitors):
                raise UserError(f"there are {len(monitors) - 1} screens", where=f"--source screen:{number}")
            _grab(grabber, monitors[number], source, feed, stride)
    except mss.exception.ScreenShotError as error:
        raise UserError(f"the screen cannot be read ({error})", where="--source screen") from None


def _grab(grabber: object, monitor: object, source: Source, feed: Feed, stride: int) -> None:
    taken = 0
    while not feed.stopped.is_set():
        start = time.perf_counter()
        pixels = np.ascontiguousarray(np.asarray(grabber.grab(monitor))[..., :3])  # type: ignore[attr-defined]
        spent = time.perf_counter() - start
        taken += 1
        if not (taken - 1) % stride:
            times = {"read": 1000 * spent}
            feed.put(Frame(source, pixels, bgr=True, number=taken, fps=SCREEN_FPS, milliseconds=times))
        feed.stopped.wait(max(0.0, 1 / SCREEN_FPS - spent))
