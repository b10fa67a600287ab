"""Ctrl-C and SIGTERM during training: the batch is finished and the state saved before the process ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from yolo_cli.errors import StoppedError


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has requested the training to stop, and which."""

    number: int = 0
    launcher: int = 0  # process id of the launcher; 0 without one

    def signal_number(self) -> int:
        """The number of the signal, or 0.

        SIGTERM if the launcher has ended: a new launcher may start processes that write to the same run.
        """
        return self.number or (signal.SIGTERM if self.launcher and os.getppid() != self.launcher else 0)


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request. A second one has its usual effect."""
    request = StopRequest(launcher=os.getppid() if "RANK" in os.environ else 0)

    def record(number: int, restore: Callable[[], None]) -> None:
        if request.number:
            restore()
            signal.raise_signal(number)
        request.number = number

    with _handle_signals(record):
        yield request


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Raise StoppedError at once at the first Ctrl-C or SIGTERM, for code in which nothing more has to be saved."""

    def end(number: int, restore: Callable[[], None]) -> None:
        restore()  # a second signal has its usual effect
        raise StoppedError(number)

    with _handle_signals(end):
        yield


@contextmanager
def _handle_signals(handle: Callable[[int, Callable[[], None]], None]) -> Iterator[None]:
    """Call `handle` with the signal's number, and a function that restores the former handlers."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        yield
        return
    owner = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # not a forked worker, which its parent ends
            handle(number, restore)

    former = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, one in former.items():
            signal.signal(number, one)

    try:
        yield
    finally:
        restore()
