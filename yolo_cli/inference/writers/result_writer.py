"""Saves frames and their detections: the last step of detection."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from yolo_cli.drawing import encode
from yolo_cli.inference.sources.frames import Ended, Frame, Item, Skipped, Source
from yolo_cli.inference.writers.image_writer import (
    Image,
    SaveOptions,
    VideoWriter,
    draw,
    refuse_among_inputs,
    write_bytes,
    write_image,
    write_labels_and_crops,
)
from yolo_cli.inference.writers.output_paths import OutputPath, OutputPaths
from yolo_cli.inference.writers.result_formats import ResultFormat
from yolo_cli.inference.writers.summary import Summary

_POLL = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written: files per frame into `folder`, rows of all frames through `formats`, and windows."""

    folder: Path | None
    save: SaveOptions
    formats: Sequence[ResultFormat] = ()
    view: bool = False


class ResultWriter:
    """Takes frames in input order, waits for their detections, and writes them, in a thread of its own.

    The thread is needed because Ctrl-C interrupts the main thread anywhere: this way a frame reaches all of its files
    or none. Images are drawn and encoded by `workers` more threads; frames of videos one after the other.
    """

    def __init__(
        self,
        outputs: Outputs,
        summary: Summary,
        release: Callable[[int], None],
        *,
        max_queued: int,
        workers: int,
    ) -> None:
        self._outputs, self._summary, self._release = outputs, summary, release
        self._error: BaseException | None = None
        self._quit = False  # q was pressed in a window
        self._paths = OutputPaths()
        self._video_paths: dict[Source, OutputPath] = {}
        self._videos: dict[Source, VideoWriter] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
        self._writing: deque[tuple[Frame, Future[float]]] = deque()
        self._max_writing = 2 * workers
        self._queue: queue.Queue[tuple[Item, Future[None] | None] | None] = queue.Queue(max_queued)
        self._unfinished: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="write results", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether nothing more is written, because of an error or because a window was closed."""
        return self._error is not None or self._quit

    def put(self, item: Item, done: Future[None] | None = None) -> None:
        """Append an item, waiting for room. `done` completes when a frame's detections are there."""
        if done is not None:
            self._unfinished.add(done)
            done.add_done_callback(self._unfinished.discard)
        self._queue.put((item, done))

    def close(self) -> None:
        """Write what is detected, leave out frames that are not, and complete all files. Raises what went wrong."""
        for done in list(self._unfinished):
            done.cancel()
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            try:
                queued = self._queue.get(timeout=_POLL if self._writing else None)
            except queue.Empty:  # the readers may be waiting for the memory of images that are written by now
                self._try(self._finish_images, self._max_writing)
                continue
            if queued is None:
                break
            item, done = queued
            # What cannot be written is still taken off the queue, so that nobody waits for room in it.
            if not self._try(self._write_when_done, item, done) and not isinstance(item, Ended):
                self._release(item.reserved)
        self._complete()

    def _try(self, step: Callable[..., None], *args: Any) -> bool:
        """Whether a step was done. No step is done after an error, which `close` raises."""
        if self._error is None:
            try:
                step(*args)
                return True
            except CancelledError:  # of a frame whose detections never come
                pass
            except BaseException as error:
                self._error = error
        return False

    def _write_when_done(self, item: Item, done: Future[None] | None) -> None:
        if done is not None:
            done.result()
        self._write(item)

    def _write(self, item: Item) -> None:
        if isinstance(item, Frame):
            self._write_frame(item)
        elif isinstance(item, Skipped):
            self._finish_images(0)  # messages come in input order
            self._summary.skip(item)
            self._release(item.reserved)
        else:
            self._end_video(item)

    def _write_frame(self, frame: Frame) -> None:
        is_image = frame.source.kind == "image"
        path = self._paths.assign(frame.source) if is_image else self._video_path(frame.source)
        for results in self._outputs.formats:
            results.add(frame, path)
        if is_image and not self._outputs.view:
            self._writing.append((frame, self._pool.submit(self._write_image, frame, path)))
            self._finish_images(self._max_writing)
            return
        start = time.perf_counter()
        if is_image:
            self._write_image(frame, path)
            self._show(frame, draw(frame, self._outputs.save.style))
        else:
            self._write_video_frame(frame, path)
        frame.milliseconds["write"] = 1000 * (time.perf_counter() - start)
        self._count(frame)

    def _video_path(self, source: Source) -> OutputPath:
        if source not in self._video_paths:
            self._video_paths[source] = self._paths.assign(source)
        return self._video_paths[source]

    def _write_image(self, frame: Frame, path: OutputPath) -> float:
        """Write all files of an image. Returns the milliseconds that it took."""
        start = time.perf_counter()
        if self._outputs.folder is not None:
            write_image(self._outputs.folder, frame, path, self._outputs.save)
            self._write_features(self._outputs.folder, frame, path)
        return 1000 * (time.perf_counter() - start)

    def _write_video_frame(self, frame: Frame, path: OutputPath) -> None:
        folder, save = self._outputs.folder, self._outputs.save
        drawn = draw(frame, save.style) if self._outputs.view or (folder and save.drawn) else None
        if folder is not None:
            write_labels_and_crops(folder, frame, path, save)
            self._write_features(folder, frame, path)
            if save.drawn and drawn is not None:
                video = self._videos.get(frame.source)
                if video is None:
                    refuse_among_inputs(folder / path.drawn, frame.source)
                    video = VideoWriter(folder / path.drawn, frame.fps, frame.size, live=frame.is_live)
                    self._videos[frame.source] = video
                video.add(drawn, frame.captured_at)
        if drawn is not None:
            self._show(frame, drawn)

    def _write_features(self, folder: Path, frame: Frame, path: OutputPath) -> None:
        for name, sheet in frame.features.items():
            write_bytes(folder / "features" / path.base / f"{name}.png", _png(sheet))

    def _show(self, frame: Frame, image: Image) -> None:
        if self._outputs.view:
            title = frame.source.name.encode(errors="replace").decode()
            cv2.imshow(title, image if frame.bgr else image[..., ::-1])
            self._quit |= cv2.waitKey(1) & 0xFF in (ord("q"), 27)

    def _finish_images(self, max_writing: int) -> None:
        """Count the images that are written, waiting until at most `max_writing` are not."""
        while self._writing and (len(self._writing) > max_writing or self._writing[0][1].done()):
            frame, future = self._writing.popleft()
            frame.milliseconds["write"] = future.result()
            self._count(frame)

    def _count(self, frame: Frame) -> None:
        self._summary.frame(frame)
        self._release(frame.reserved)

    def _end_video(self, ended: Ended) -> None:
        self._finish_images(0)
        self._video_paths.pop(ended.source, None)
        if (video := self._videos.pop(ended.source, None)) is not None:
            video.close()
        self._summary.end(ended)

    def _complete(self) -> None:
        """Complete every file, even where another one fails."""
        closing = [video.close for video in self._videos.values()]
        closing += [results.close for results in self._outputs.formats]
        for step in (lambda: self._finish_images(0), *closing):
            try:
                step()
            except BaseException as error:
                self._error = self._error or error
        self._pool.shutdown()
        self._summary.close()


def _png(sheet: UInt8[np.ndarray, "_ _"]) -> bytes:
    return encode(cv2.cvtColor(sheet, cv2.COLOR_GRAY2BGR), ".png", bgr=True)
