"""Limits of processor time and address space for one input."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from types import FrameType

HEADROOM = 2 * 2**30  # extra bytes of address space for thread stacks, arenas and libraries that are loaded late


class OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in a reader does not catch it."""


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raise OutOfTime after this much processor time."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def limited_memory(mebibytes: int) -> Iterator[None]:
    """Limit the address space to its present size plus `mebibytes` and HEADROOM."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = address_space("VmSize:")
    if now:
        resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + mebibytes * 2**20 + HEADROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def address_space(field: str = "VmPeak:") -> int:
    """Peak address space of this process in KiB, or 0 without /proc."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field.encode()))
    except (OSError, StopIteration):
        return 0


def _too_long(_: int, __: FrameType | None) -> None:
    raise OutOfTime
