"""What one input may take: processor time and address space."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from types import FrameType

HEADROOM = 2 * 2**30  # bytes of address space beyond what is granted: thread stacks, arenas, libraries loaded late


class OutOfTime(BaseException):
    """No reader may swallow it as it may an Exception."""


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raises OutOfTime after so much processor time."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def limited_memory(mebibytes: int) -> Iterator[None]:
    """No more address space than the process has now, so much, and some headroom."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = address_space("VmSize:")
    if now:
        resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + mebibytes * 2**20 + HEADROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def address_space(field: str = "VmPeak:") -> int:
    """KiB of address space that this process has had at most; 0 where the system does not say."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field.encode()))
    except (OSError, StopIteration):
        return 0


def _too_long(_: int, __: FrameType | None) -> None:
    raise OutOfTime
