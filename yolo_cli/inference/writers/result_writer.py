"""The far end: frames in the order of the inputs to files, records and the summary, beside the network's work."""

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from yolo_cli.drawing import encode
from yolo_cli.inference.prefetch import Budget
from yolo_cli.inference.sources.frames import Ended, Frame, Item, Skipped, Source
from yolo_cli.inference.writers.image_writer import (
    Picture,
    SaveOptions,
    Video,
    draw,
    refuse_among_inputs,
    write_beside,
    write_bytes,
    write_still,
)
from yolo_cli.inference.writers.output_paths import Names, OutputPath
from yolo_cli.inference.writers.result_formats import Record
from yolo_cli.inference.writers.summary import Summary

_Numbered = tuple[int, Item]


class Sink:
    """Takes numbered items in any order and works them off in theirs, in a thread of its own.

    Stills are drawn and written by several threads; frames of videos one after the other. What goes wrong stands in
    `error` and is raised by `close`.
    """

    def __init__(
        self,
        folder: Path | None,
        wanted: SaveOptions,
        records: Sequence[Record],
        summary: Summary,
        budget: Budget,
        *,
        workers: int,
        view: bool = False,
    ) -> None:
        self.folder, self.wanted, self.records, self.summary = folder, wanted, records, summary
        self.error: BaseException | None = None
        self.quit = False  # somebody pressed q in a window
        self._budget, self._view, self._most = budget, view, 2 * workers
        self._names = Names()
        self._places: dict[Source, OutputPath] = {}
        self._videos: dict[Source, Video] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
        self._writing: deque[tuple[Frame, Future[float]]] = deque()
        self._queue: queue.Queue[_Numbered | None] = queue.Queue(64)
        self._thread = threading.Thread(target=self._work, name="sink", daemon=True)
        self._thread.start()

    def put(self, number: int, item: Item) -> None:
        """Hand on an item; numbers count from 0 without a gap."""
        self._queue.put((number, item))

    def close(self) -> None:
        """Work off what was handed on, and complete all files. Raises what went wrong."""
        self._queue.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        waiting: dict[int, Item] = {}
        following = 0
        while (numbered := self._queue.get()) is not None:
            waiting[numbered[0]] = numbered[1]
            while (item := waiting.pop(following, None)) is not None:
                following += 1
                self._try(item)
        for _, item in sorted(waiting.items()):
            self._try(item)
        self._complete()

    def _try(self, item: Item) -> None:
        """After an error items are only let go, so that nobody waits for this thread."""
        if self.error is None:
            try:
                self._item(item)
                return
            except BaseException as error:
                self.error = error
        if not isinstance(item, Ended):
            self._budget.release(item.claimed)

    def _item(self, item: Item) -> None:
        if isinstance(item, Frame):
            self._frame(item)
        elif isinstance(item, Skipped):
            self._settle(0)  # reports come in the order of the inputs
            self.summary.skip(item)
            self._budget.release(item.claimed)
        else:
            self._end(item)

    def _frame(self, frame: Frame) -> None:
        source = frame.source
        if frame.source.kind == "image":
            place = self._names.place(source)
        elif (known := self._places.get(source)) is not None:
            place = known
        else:
            place = self._places[source] = self._names.place(source)
        for record in self.records:
            record.add(frame, place)
        if source.kind == "image" and not self._view:
            self._writing.append((frame, self._pool.submit(self._still, frame, place)))
            self._settle(self._most)
            return
        start = time.perf_counter()
        if source.kind == "image":
            self._still(frame, place)
            self._show(frame, draw(frame, self.wanted.style))
        else:
            self._moving(frame, place)
        frame.milliseconds["write"] = 1000 * (time.perf_counter() - start)
        self._done(frame)

    def _still(self, frame: Frame, place: OutputPath) -> float:
        start = time.perf_counter()
        if self.folder is not None:
            write_still(self.folder, frame, place, self.wanted)
            self._features(frame, place)
        return 1000 * (time.perf_counter() - start)

    def _moving(self, frame: Frame, place: OutputPath) -> None:
        drawn = draw(frame, self.wanted.style) if self._view or (self.folder and self.wanted.drawn) else None
        if self.folder is not None:
            write_beside(self.folder, frame, place, self.wanted)
            self._features(frame, place)
            if self.wanted.drawn and drawn is not None:
                video = self._videos.get(frame.source)
                if video is None:
                    refuse_among_inputs(self.folder / place.drawn, frame.source)
                    video = Video(self.folder / place.drawn, frame.fps, frame.size, live=frame.is_live)
                    self._videos[frame.source] = video
                video.add(drawn, frame.at)
        if drawn is not None:
            self._show(frame, drawn)

    def _features(self, frame: Frame, place: OutputPath) -> None:
        for name, sheet in frame.features.items():
            if self.folder is not None:
                write_bytes(self.folder / "features" / place.base / f"{name}.png", _png(sheet))

    def _show(self, frame: Frame, picture: Picture) -> None:
        if self._view:
            title = frame.source.name.encode(errors="replace").decode()
            cv2.imshow(title, picture if frame.bgr else picture[..., ::-1])
            self.quit |= cv2.waitKey(1) & 0xFF in (ord("q"), 27)

    def _settle(self, most: int) -> None:
        """Wait until at most `most` stills are being written; count those that are done."""
        while self._writing and (len(self._writing) > most or self._writing[0][1].done()):
            frame, future = self._writing.popleft()
            frame.milliseconds["write"] = future.result()
            self._done(frame)

    def _done(self, frame: Frame) -> None:
        self.summary.frame(frame)
        self._budget.release(frame.claimed)

    def _end(self, ended: Ended) -> None:
        self._settle(0)
        self._places.pop(ended.source, None)
        if (video := self._videos.pop(ended.source, None)) is not None:
            video.close()
        self.summary.end(ended)

    def _complete(self) -> None:
        """Finish every file, whatever happens to another one."""

        def settle() -> None:
            self._settle(0)

        steps = [settle, *(video.close for video in self._videos.values()), *(record.close for record in self.records)]
        for step in steps:
            try:
                step()
            except BaseException as error:
                self.error = self.error or error
        self._pool.shutdown()
        self.summary.close()


def _png(sheet: UInt8[np.ndarray, "_ _"]) -> bytes:
    return encode(cv2.cvtColor(sheet, cv2.COLOR_GRAY2BGR), ".png", bgr=True)
