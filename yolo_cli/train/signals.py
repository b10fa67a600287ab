"""Ctrl-C and SIGTERM during training: the batch is finished and saved before the process ends."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class StoppedError(Exception):
    """A signal ended the training after what was done had been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has asked for an end, and which."""

    number: int = 0
    launcher: int = 0  # the process that started this one and many like it

    def asked(self) -> int:
        """The signal's number, or 0; a launcher that is no more asks for an end, too, lest two write to one run."""
        return self.number or (signal.SIGTERM if self.launcher and os.getppid() != self.launcher else 0)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM raise StoppedError wherever the process is: where nothing more is to be saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return
        restore()  # a second one ends the process, as without us
        raise StoppedError(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    finally:
        restore()


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one ends the process at once, as without us."""
    request = StopRequest(launcher=os.getppid() if "RANK" in os.environ else 0)
    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        yield request
        return
    owner = os.getpid()

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker forked meanwhile: the parent ends it
            return
        if request.number:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)
        request.number = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
