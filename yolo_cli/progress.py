"""The interface through which commands report lines and progress bars; the caller passes an implementation in."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """A progress bar over a known number of steps."""

    def advance(self, text: str = "") -> None:
        """Complete one step; `text` is shown next to the bar."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Receives lines and progress bars."""

    def info(self, text: str) -> None:
        """Print a line of information."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning."""
        ...

    def bar(self, total: int, title: str) -> AbstractContextManager[Bar]:
        """Show a progress bar over `total` steps."""
        ...


class _NoBar:
    def advance(self, text: str = "") -> None:
        pass


class Silent:
    """A Reporter that discards everything."""

    def info(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def bar(self, total: int, title: str) -> AbstractContextManager[Bar]:
        return nullcontext(_NoBar())


class Stderr(Silent):
    """A Reporter for use from Python: lines on the standard error, no bars."""

    def info(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)
