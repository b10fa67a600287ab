"""Between the readers and the network: a bounded queue that live sources may overtake, and a bound on memory."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from yolo_cli.inference.sources.frames import Frame, Item

Queued = Item | Future[Item]

MEMORY = 2**30  # bytes of pictures under way at any time, unless a single one needs more


class Budget:
    """Bytes that pictures under way may hold together. A picture larger than all of it passes alone."""

    def __init__(self, limit: int = MEMORY) -> None:
        self._limit, self._used = limit, 0
        self._free = threading.Condition()
        self._closed = False
        self.starved = False  # a reader waits for memory that only finishing what was read can free

    def claim(self, size: int) -> int:
        """Wait until `size` bytes are free, and take them; returns what was taken."""
        with self._free:
            while self._used and self._used + size > self._limit and not self._closed:
                self.starved = True
                self._free.wait()
            self.starved = False
            self._used += size
            return size

    def grow(self, size: int) -> None:
        """Take `size` bytes more, at once: they are there already."""
        with self._free:
            self._used += size

    def release(self, size: int) -> None:
        """Give back."""
        with self._free:
            self._used -= size
            self._free.notify_all()

    def close(self) -> None:
        """Let everybody pass: nothing more is wanted."""
        with self._free:
            self._closed = True
            self._free.notify_all()


class Feed:
    """A bounded queue from one or several readers. It never loses an item, except where `dropping`.

    With `dropping` a new frame of a live source takes the place of the one that nobody has taken yet: a camera is
    judged on what it sees now. Frames of files wait.
    """

    def __init__(self, size: int, *, dropping: bool = False) -> None:
        self._size, self._dropping = size, dropping
        self._items: deque[Queued] = deque()
        self._change = threading.Condition()
        self._readers: list[threading.Thread] = []
        self._running = 0
        self._error: BaseException | None = None
        self.stopped = threading.Event()
        self.dropped = 0

    def start(self, read: Callable[[], None], name: str) -> None:
        """Run a reader in a thread of its own."""
        with self._change:
            self._running += 1
        thread = threading.Thread(target=self._read, args=(read,), name=name, daemon=True)
        self._readers.append(thread)
        thread.start()

    def _read(self, read: Callable[[], None]) -> None:
        try:
            read()
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._running -= 1
                self._change.notify_all()

    def put(self, item: Queued) -> bool:
        """Hand on an item, waiting for room; False once nobody wants any more."""
        with self._change:
            if self._dropping and isinstance(item, Frame) and item.is_live and self._replaced(item):
                return not self.stopped.is_set()
            while len(self._items) >= self._size and not self.stopped.is_set():
                self._change.wait()
            if self.stopped.is_set():
                return False
            self._items.append(item)
            self._change.notify_all()
            return True

    def _replaced(self, new: Frame) -> bool:
        for i, old in enumerate(self._items):
            if isinstance(old, Frame) and old.source is new.source:
                self._items[i] = new
                self.dropped += 1
                return True
        return False

    def take(self, seconds: float) -> Queued | None:
        """The next item, or None where none comes in time. Raises EOFError when all is read, or a reader's error."""
        with self._change:
            if not self._items and self._running and self._error is None:
                self._change.wait(seconds)
            if self._error is not None:
                raise self._error
            if self._items:
                item = self._items.popleft()
                self._change.notify_all()
                return item
            if not self._running:
                raise EOFError
            return None

    def stop(self) -> None:
        """Tell the readers to end; what is queued is dropped."""
        with self._change:
            self.stopped.set()
            self._items.clear()
            self._change.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the readers to end, so long for all of them together."""
        until = time.monotonic() + seconds
        for thread in self._readers:
            thread.join(max(0.0, until - time.monotonic()))
