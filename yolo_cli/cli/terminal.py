"""Progress output: bars on a terminal, plain lines in a file or a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never, TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0  # without a terminal, progress is printed at most this often


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
        self._start = self._last_line = time.monotonic()

    def advance(self, text: str = "") -> None:
        self._done += 1
        self._text = text
        if time.monotonic() - self._last_line >= LINE_SECONDS and self._done < self._total:
            left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            self._line(f"{self._done}/{self._total}, {left:.0f} s left")

    def close(self) -> None:
        if self._text:  # figures such as losses are printed once, at the end
            self._line(f"{self._done}/{self._total} in {time.monotonic() - self._start:.1f} s")

    def _line(self, progress: str) -> None:
        self._last_line = time.monotonic()
        print(f"{self._title}: {progress}{f'  {self._text}' if self._text else ''}", file=self._stream, flush=True)


class Terminal:
    """A Reporter. Bars and warnings go to standard error, results to `output` (standard output by default)."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._interactive = sys.stderr.isatty()
        self._output = output

    def info(self, text: str) -> None:
        print(text, file=self._output, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, total: int, title: str) -> Iterator[_TerminalBar | _PlainBar]:
        """A bar that disappears at the end, except for epochs; without a terminal, a line every LINE_SECONDS."""
        if not self._interactive:
            plain = _PlainBar(total, title, sys.stderr)
            yield plain
            plain.close()
            return
        with tqdm(total=total, desc=title, leave=title.startswith("epoch"), dynamic_ncols=True, file=sys.stderr) as bar:
            yield _TerminalBar(bar)
