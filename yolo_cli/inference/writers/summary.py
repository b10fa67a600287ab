"""Messages about a run: one line per source, and totals at the end."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from yolo_cli.inference.sources.frames import Ended, Frame, Skipped, Source

STAGES = ("read", "prepare", "network", "nms", "write")
PROGRESS_SECONDS = 10.0  # between progress lines of a long video


@dataclass(slots=True)
class Totals:
    """Sums over frames."""

    frames: int = 0
    found: Counter[str] = field(default_factory=Counter)
    milliseconds: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    def add(self, frame: Frame) -> None:
        self.frames += 1
        self.found.update(frame.detections.counts())
        self.milliseconds.update(frame.milliseconds)


class Summary:
    """Counts frames as they are written, in input order, and reports each source."""

    def __init__(self, info: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._info, self._warn = info, warn
        self._open_videos: dict[Source, Totals] = {}
        self.total = Totals()
        self.images, self.videos, self.skipped = 0, 0, 0

    def frame(self, frame: Frame) -> None:
        """Count a frame. An image is reported at once, a video at its end and every PROGRESS_SECONDS."""
        self.total.add(frame)
        if frame.source.kind == "image":
            self.images += 1
            height, width = frame.size
            spent = sum(frame.milliseconds.values())
            found = _class_counts(frame.detections.counts())
            self._info(f"{frame.source.name}: {width}×{height}, {found}, {spent:.1f} ms")
            return
        totals = self._open_videos.setdefault(frame.source, Totals())
        totals.add(frame)
        now = time.monotonic()
        if now - totals.reported >= PROGRESS_SECONDS:
            totals.reported = now
            rate = totals.frames / max(now - totals.started, 1e-6)
            self._info(f"{frame.source.name}: {totals.frames:,} frames so far, {rate:.1f} per second")

    def skip(self, skipped: Skipped) -> None:
        """Report a source that cannot be read."""
        self.skipped += 1
        self._warn(f"{skipped.source.name}: skipped: {skipped.reason}")

    def end(self, ended: Ended) -> None:
        """Report a video or stream at its end."""
        totals = self._open_videos.pop(ended.source, Totals())
        self.videos += 1
        if totals.frames:
            self._info(_video_line(ended.source, totals))
        if ended.error:
            self.skipped += 1
            self._warn(f"{ended.source.name}: {ended.error}")

    def close(self) -> None:
        """Report videos and streams that were interrupted."""
        for source, totals in self._open_videos.items():
            self.videos += 1
            self._info(_video_line(source, totals))
        self._open_videos.clear()

    def last_lines(self) -> list[str]:
        """The totals: what was read and found, milliseconds per stage, and how much was skipped."""
        total = self.total
        parts = [_count(self.images, "image")] if self.images or not self.videos else []
        if self.videos:
            parts.append(f"{_count(self.videos, 'video')} ({_count(total.frames - self.images, 'frame')})")
        lines = [f"{', '.join(parts)}: {_class_counts(dict(total.found.most_common()))}"]
        if total.frames:
            stages = ", ".join(f"{name} {total.milliseconds[name] / total.frames:.1f}" for name in STAGES)
            seconds = max(time.monotonic() - total.started, 1e-6)
            rate = f"{total.frames / seconds:.1f} images per second"
            lines.append(f"ms per image: {stages}; {rate}, since the stages overlap")
        if self.skipped:
            lines.append(f"{self.skipped} skipped")
        return lines


def _video_line(source: Source, totals: Totals) -> str:
    spent = sum(totals.milliseconds.values()) / totals.frames
    return f"{source.name}: {_count(totals.frames, 'frame')}, {_class_counts(totals.found)}, {spent:.1f} ms per frame"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _class_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "no detections"
