"""How the parts below the command line speak: lines and bars, through an object that the command passes in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """Progress over a known number of steps."""

    def advance(self, text: str = "") -> None:
        """One step is done; `text` stands beside the bar."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Where progress goes."""

    def info(self, text: str) -> None:
        """A line of information."""
        ...

    def warn(self, text: str) -> None:
        """A line that the user should not miss."""
        ...

    def bar(self, total: int, title: str) -> AbstractContextManager[Bar]:
        """A bar over `total` steps."""
        ...


class _NoBar:
    def advance(self, text: str = "") -> None:
        pass


class Silent:
    """A Reporter that says nothing."""

    def info(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def bar(self, total: int, title: str) -> AbstractContextManager[Bar]:
        """A bar that shows nothing."""
        return nullcontext(_NoBar())
