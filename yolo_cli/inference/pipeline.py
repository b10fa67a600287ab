"""Reading, network and writing at the same time, with bounded queues between them."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from yolo_cli.inference.predictor import Predictor, Spent
from yolo_cli.inference.prefetch import Budget, Feed
from yolo_cli.inference.sources.frames import Canvas, Frame, Source
from yolo_cli.inference.writers.features import feature_sheets
from yolo_cli.inference.writers.result_writer import Sink

_LOOK_AROUND = 0.05  # seconds after which a waiting loop sees whether something else is to be done
_WINDOW = 4  # batches; a frame of a rare shape waits at most for so many others


class Pipeline:
    """Takes from a feed, batches frames of one shape, detects, and hands on to a sink.

    `workers` batches are in the network at once. Where `eager`, frames never wait for others to fill a batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        feed: Feed,
        sink: Sink,
        budget: Budget,
        *,
        batch: int,
        workers: int,
        threads: int,
        eager: bool,
        visualize: bool = False,
    ) -> None:
        self._predictor, self._feed, self._sink, self._budget = predictor, feed, sink, budget
        self._batch, self._eager, self._visualize = batch, eager, visualize
        self._under_way = workers - 1 if eager and workers == 1 else workers
        self._pool = ThreadPoolExecutor(workers, "network", initializer=torch.set_num_threads, initargs=(threads,))
        self._running: deque[Future[Sequence[tuple[int, Frame]]]] = deque()
        self._groups: dict[tuple[int, int], list[tuple[int, Frame]]] = {}
        self._number = 0
        self._seen: set[Source] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until the feed ends. However it ends, what was detected reaches the sink. Raises readers' errors."""
        try:
            while self._sink.error is None and not self._sink.quit:
                try:
                    queued = self._feed.take(0.0 if self._eager and self._groups else _LOOK_AROUND)
                except EOFError:
                    self._flush()
                    break
                if queued is None:
                    if self._eager or self._budget.starved:
                        self._flush()
                    self._hand_on(len(self._running), wait=False)
                    continue
                item = queued.result() if isinstance(queued, Future) else queued
                number, self._number = self._number, self._number + 1
                if isinstance(item, Frame):
                    self._add(number, item)
                else:
                    self._sink.put(number, item)
        finally:
            self._feed.stop()
            self._budget.close()
            self._hand_on(0)
            self._pool.shutdown()

    def _add(self, number: int, frame: Frame) -> None:
        if self._predictor.settings.tile:
            self._submit([(number, frame)])
            return
        if frame.canvas is None:
            prepare(frame, self._predictor)
        assert frame.canvas is not None
        group = self._groups.setdefault(frame.canvas.size, [])
        group.append((number, frame))
        if len(group) >= self._batch:
            self._submit(self._groups.pop(frame.canvas.size))
        for size, waiting in list(self._groups.items()):
            if number - waiting[0][0] >= _WINDOW * self._batch:
                self._submit(self._groups.pop(size))

    def _flush(self) -> None:
        for size in list(self._groups):
            self._submit(self._groups.pop(size))

    def _submit(self, group: Sequence[tuple[int, Frame]]) -> None:
        self._running.append(self._pool.submit(self._detect, group))
        self._hand_on(self._under_way)

    def _hand_on(self, most: int, *, wait: bool = True) -> None:
        """Pass finished batches to the sink, so that at most `most` are under way."""
        while self._running and (self._running[0].done() or (wait and len(self._running) > most)):
            for number, frame in self._running.popleft().result():
                self._sink.put(number, frame)

    def _detect(self, group: Sequence[tuple[int, Frame]]) -> Sequence[tuple[int, Frame]]:
        spent, frames = Spent(), [frame for _, frame in group]
        if self._predictor.settings.tile:
            (frame,) = frames
            frame.detections = self._predictor.tiled(frame.pixels, bgr=frame.bgr, most=self._batch, spent=spent)
        else:
            canvases = [frame.canvas for frame in frames if frame.canvas is not None]
            for frame, found in zip(frames, self._predictor.batch(canvases, spent), strict=True):
                frame.detections = found
        for frame in frames:
            frame.milliseconds["network"] = spent.network / len(frames)
            frame.milliseconds["nms"] = spent.nms / len(frames)
            model = self._predictor.model
            if self._visualize and model is not None and self._is_first(frame.source):
                canvas: Canvas = frame.canvas or self._predictor.place(frame.pixels, bgr=frame.bgr)
                frame.features = feature_sheets(model, canvas, self._predictor.device)
            frame.canvas = None
        return group

    def _is_first(self, source: Source) -> bool:
        with self._lock:
            first = source not in self._seen
            self._seen.add(source)
            return first


def prepare(frame: Frame, predictor: Predictor) -> None:
    """Lay the frame onto its canvas."""
    start = time.perf_counter()
    frame.canvas = predictor.place(frame.pixels, bgr=frame.bgr)
    frame.milliseconds["prepare"] = 1000 * (time.perf_counter() - start)
