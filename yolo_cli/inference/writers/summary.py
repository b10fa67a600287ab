"""What a run has seen: counts by class and milliseconds by stage, a line a source and a last one."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from yolo_cli.inference.sources.frames import Ended, Frame, Skipped, Source

STAGES = ("read", "prepare", "network", "nms", "write")
QUIET_SECONDS = 10.0  # a long video says at least this often how far it is


@dataclass(slots=True)
class Tally:
    """Sums over frames."""

    frames: int = 0
    found: Counter[str] = field(default_factory=Counter)
    milliseconds: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        self.frames += 1
        self.found.update(frame.detections.counts())
        self.milliseconds.update(frame.milliseconds)


class Summary:
    """Counts while frames pass, in the order of the inputs, and says a line a source."""

    def __init__(self, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._say, self._warn = say, warn
        self._moving: dict[Source, Tally] = {}
        self.total = Tally()
        self.images, self.videos, self.skipped = 0, 0, 0

    def frame(self, frame: Frame) -> None:
        """Count a frame; a still is reported at once."""
        self.total.add(frame)
        if frame.source.kind == "image":
            self.images += 1
            height, width = frame.size
            spent = sum(frame.milliseconds.values())
            self._say(f"{frame.source.name}: {width}×{height}, {_listing(frame.detections.counts())}, {spent:.1f} ms")
            return
        tally = self._moving.setdefault(frame.source, Tally())
        tally.add(frame)
        now = time.monotonic()
        if now - tally.said >= QUIET_SECONDS:
            tally.said = now
            rate = tally.frames / max(now - tally.begun, 1e-6)
            self._say(f"{frame.source.name}: {tally.frames:,} frames so far, {rate:.1f} a second")

    def skip(self, skipped: Skipped) -> None:
        """Report what could not be read."""
        self.skipped += 1
        self._warn(f"{skipped.source.name}: skipped: {skipped.why}")

    def end(self, ended: Ended) -> None:
        """Report a video or stream that is over."""
        tally = self._moving.pop(ended.source, Tally())
        self.videos += 1
        if tally.frames:
            self._say(_line(ended.source, tally))
        if ended.why:
            self.skipped += 1
            self._warn(f"{ended.source.name}: {ended.why}")

    def close(self) -> None:
        """Report what is still running, as when it is interrupted."""
        for source, tally in self._moving.items():
            self.videos += 1
            self._say(_line(source, tally))
        self._moving.clear()

    def last_lines(self) -> list[str]:
        """Everything in few lines, the most frequent classes first."""
        total = self.total
        parts = [_count(self.images, "image")] if self.images or not self.videos else []
        if self.videos:
            parts.append(f"{_count(self.videos, 'video')} ({_count(total.frames - self.images, 'frame')})")
        lines = [f"{', '.join(parts)}: {_listing(dict(total.found.most_common()))}"]
        if total.frames:
            each = ", ".join(f"{name} {total.milliseconds[name] / total.frames:.1f}" for name in STAGES)
            seconds = max(time.monotonic() - total.begun, 1e-6)
            lines.append(f"ms an image: {each}; with stages side by side {total.frames / seconds:.1f} images a second")
        if self.skipped:
            lines.append(f"{self.skipped} skipped")
        return lines


def _line(source: Source, tally: Tally) -> str:
    spent = sum(tally.milliseconds.values()) / tally.frames
    return f"{source.name}: {_count(tally.frames, 'frame')}, {_listing(dict(tally.found))}, {spent:.1f} ms a frame"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listing(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "nothing found"
