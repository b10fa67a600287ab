"""Progress on the terminal: lines and bars for people, plain lines where the output is a file or a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never, TextIO

from tqdm import tqdm

QUIET_SECONDS = 10.0  # without a terminal, a long stage says at most this often how far it is


class _TerminalBar:
    def __init__(self, bar: "tqdm[Never]") -> None:
        self._bar = bar

    def advance(self, text: str = "") -> None:
        if text:
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()


class _PlainBar:
    def __init__(self, total: int, title: str, stream: TextIO) -> None:
        self._total, self._title, self._stream = total, title, stream
        self._done, self._text = 0, ""
        self._start = self._said = time.monotonic()

    def advance(self, text: str = "") -> None:
        self._done += 1
        self._text = text
        if time.monotonic() - self._said >= QUIET_SECONDS and self._done < self._total:
            left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            self._line(f"{self._done}/{self._total}, {left:.0f} s left")

    def close(self) -> None:
        if self._text:  # a stage with figures to show says them once, at its end
            self._line(f"{self._done}/{self._total} in {time.monotonic() - self._start:.1f} s")

    def _line(self, progress: str) -> None:
        self._said = time.monotonic()
        print(f"{self._title}: {progress}{f'  {self._text}' if self._text else ''}", file=self._stream, flush=True)


class Terminal:
    """A Reporter that writes to the standard error (bars, warnings) and the standard output, or `says` (results)."""

    def __init__(self, says: TextIO | None = None) -> None:
        self._interactive = sys.stderr.isatty()
        self._says = says

    def info(self, text: str) -> None:
        """A line of results."""
        print(text, file=self._says, flush=True)

    def warn(self, text: str) -> None:
        """A line on the standard error."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, total: int, title: str) -> Iterator[_TerminalBar | _PlainBar]:
        """A bar that goes away when done, or few plain lines where nobody watches."""
        if not self._interactive:
            plain = _PlainBar(total, title, sys.stderr)
            yield plain
            plain.close()
            return
        with tqdm(total=total, desc=title, leave=title.startswith("epoch"), dynamic_ncols=True, file=sys.stderr) as bar:
            yield _TerminalBar(bar)
