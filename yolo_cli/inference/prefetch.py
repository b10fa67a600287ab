"""Reads sources ahead of the network, in threads, with a bound on the frames and on the memory in use."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from yolo_cli.inference.sources.frames import Frame, Item, Source
from yolo_cli.inference.sources.images import expected_bytes, read_still
from yolo_cli.inference.sources.sources import Sources
from yolo_cli.inference.sources.streams import read_screen, read_stream
from yolo_cli.inference.sources.video import read_video

_COPIES = 2  # of a frame's pixels at once: as read, and with boxes drawn

Queued = Item | Future[Item]


class Prefetch:
    """A queue that reader threads fill, of at most `max_items`.

    Frames of files hold memory from before they are decoded until `release`: at most `memory` bytes together, except
    that one larger frame passes alone. With `newest_only`, a frame of a live source replaces the one that still waits
    in the queue, so that detections show what the camera sees now. Frames of files are never dropped.
    """

    def __init__(self, max_items: int, *, newest_only: bool = False, memory: float = math.inf) -> None:
        self._max_items, self._newest_only, self._memory = max_items, newest_only, memory
        self._change = threading.Condition()
        self._queue: deque[Queued] = deque()
        self._reserved = 0
        self._readers: list[threading.Thread] = []
        self._running = 0
        self._error: BaseException | None = None
        self.stopped = threading.Event()
        self._waiting_for_memory = 0  # readers
        self.dropped = 0

    @property
    def needs_memory(self) -> bool:
        """Whether a reader waits until frames that are read already have been released."""
        return self._waiting_for_memory > 0

    def start(self, items: Iterator[Queued], name: str) -> None:
        """Fill the queue from `items` in a thread of its own."""
        with self._change:
            self._running += 1
        thread = threading.Thread(target=self._fill, args=(items,), name=name, daemon=True)
        self._readers.append(thread)
        thread.start()

    def _fill(self, items: Iterator[Queued]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._running -= 1
                self._change.notify_all()

    def _put(self, item: Queued) -> bool:
        """Wait for room and append; False once stopped."""
        with self._change:
            if self._newest_only and isinstance(item, Frame) and item.is_live and self._replace(item):
                return not self.stopped.is_set()
            self._change.wait_for(lambda: len(self._queue) < self._max_items or self.stopped.is_set())
            if self.stopped.is_set():
                return False
            self._queue.append(item)
            self._change.notify_all()
            return True

    def _replace(self, new: Frame) -> bool:
        for i, old in enumerate(self._queue):
            if isinstance(old, Frame) and old.source is new.source:
                self._queue[i] = new
                self.dropped += 1
                return True
        return False

    def get(self, timeout: float) -> Item | None:
        """The next item, or None after `timeout` seconds. Raises EOFError at the end, and what a reader raised."""
        with self._change:
            self._change.wait_for(lambda: self._queue or not self._running or self._error, timeout)
            if self._error is not None:
                raise self._error
            if not self._queue:
                if not self._running:
                    raise EOFError
                return None
            item = self._queue.popleft()
            self._change.notify_all()
        return item.result() if isinstance(item, Future) else item

    def reserve(self, size: int) -> int:
        """Wait until `size` bytes fit into the memory limit and take them. Returns `size`."""

        def fits() -> bool:
            return not self._reserved or self._reserved + size <= self._memory or self.stopped.is_set()

        with self._change:
            self._waiting_for_memory += 1
            self._change.wait_for(fits)
            self._waiting_for_memory -= 1
            self._reserved += size
            return size

    def reserve_at_once(self, size: int) -> int:
        """Take `size` bytes without waiting, for memory that is in use already. Returns `size`."""
        with self._change:
            self._reserved += size
            return size

    def release(self, size: int) -> None:
        """Give back what `reserve` took."""
        with self._change:
            self._reserved -= size
            self._change.notify_all()

    def stop(self) -> None:
        """Drop what is queued and let the readers end."""
        with self._change:
            self.stopped.set()
            self._queue.clear()
            self._change.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the readers to end, at most `timeout` seconds for all of them together."""
        end = time.monotonic() + timeout
        for thread in self._readers:
            thread.join(max(0.0, end - time.monotonic()))


def start_readers(
    prefetch: Prefetch,
    sources: Sources,
    preprocess: Callable[[Frame], None],
    *,
    stride: int,
    decoders: int,
    warn: Callable[[str], None],
) -> None:
    """Start reading: one thread per live source, or one for all files with `decoders` threads that decode images."""
    if not sources.live:
        prefetch.start(_read_files(prefetch, sources, preprocess, stride, decoders), "read files")
        return
    for source in sources.items:
        if source.kind == "stream":
            items: Iterator[Item] = read_stream(source, stride, prefetch.stopped, warn)
        elif source.kind == "screen":
            items = read_screen(source, stride, prefetch.stopped)
        else:
            items = _read_video(prefetch, source, preprocess, stride)
        prefetch.start(items, f"read {source.name}")


def _read_files(
    prefetch: Prefetch, sources: Sources, preprocess: Callable[[Frame], None], stride: int, decoders: int
) -> Iterator[Queued]:
    def read_image(source: Source, reserved: int) -> Item:
        item = read_still(source, reserved)
        if isinstance(item, Frame):
            more = item.pixels.nbytes * _COPIES - reserved
            if more > 0:  # the size of some formats is only estimated before decoding
                item.reserved += prefetch.reserve_at_once(more)
            preprocess(item)
        return item

    with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:
        for source in sources.items:
            if source.kind == "video":
                yield from _read_video(prefetch, source, preprocess, stride)
            else:
                reserved = prefetch.reserve(expected_bytes(source) * _COPIES)
                yield pool.submit(read_image, source, reserved)  # the queue keeps the order


def _read_video(prefetch: Prefetch, source: Source, preprocess: Callable[[Frame], None], stride: int) -> Iterator[Item]:
    for item in read_video(source, stride, prefetch.stopped):
        if isinstance(item, Frame):
            item.reserved = prefetch.reserve(item.pixels.nbytes * _COPIES)
            preprocess(item)
        yield item
