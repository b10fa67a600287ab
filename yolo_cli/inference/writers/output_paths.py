"""Names of output files: those of the inputs, and never one for two inputs."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePath

from yolo_cli.inference.sources.frames import Frame, Source

RESERVED = frozenset(["crops", "features", "labels"])  # folders that a run makes itself
_MAX_BYTES = 200  # of a name; file systems allow 255, and numbers and suffixes are added
# Images with these suffixes keep them; others are written as JPEG.
WRITABLE = frozenset([".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])


@dataclass(frozen=True, slots=True)
class OutputPath:
    """Where a source's outputs go, relative to the run folder."""

    drawn: PurePath  # the drawn image or video
    base: PurePath  # of labels and crops, without a suffix

    def stem(self, frame: Frame) -> PurePath:
        """The base of one frame's files."""
        return self.base.with_name(f"{self.base.name}_{frame.number}") if frame.number else self.base


class OutputPaths:
    """Assigns output paths. Where two inputs would share one, the second gets its suffix or a number appended."""

    def __init__(self) -> None:
        self._drawn: set[str] = set()
        self._bases: set[str] = set()
        self._prefixes: set[str] = set()  # bases without a trailing _NUMBER: a video's frames would take these names
        self._videos: set[str] = set()

    def assign(self, source: Source) -> OutputPath:
        """An output path that no other source has."""
        is_video = source.kind != "image"
        relative = _inside_run_folder(source.relative)
        suffix = ".mp4" if is_video else relative.suffix if relative.suffix.lower() in WRITABLE else ".jpg"
        stem = relative.with_suffix("")
        bases = (stem.with_name(name) for name in _candidates(stem.name, relative.name))
        base = next(base for base in bases if self._is_free(base, is_video=is_video))
        drawn = stem.with_name(stem.name + suffix)
        if _key(drawn) in self._drawn:
            names = (stem.with_name(name + suffix) for name in _candidates(base.name, relative.name))
            drawn = next(name for name in names if _key(name) not in self._drawn)
        self._reserve(drawn, base, is_video=is_video)
        return OutputPath(drawn, base)

    def _is_free(self, base: PurePath, *, is_video: bool) -> bool:
        key = _key(base)
        return key not in self._bases and _prefix(key) not in self._videos and not (is_video and key in self._prefixes)

    def _reserve(self, drawn: PurePath, base: PurePath, *, is_video: bool) -> None:
        key = _key(base)
        self._drawn.add(_key(drawn))
        self._bases.add(key)
        if is_video:
            self._videos.add(key)
        if (prefix := _prefix(key)) is not None:
            self._prefixes.add(prefix)


def _inside_run_folder(relative: PurePath) -> PurePath:
    """The path changed so that it stays in the run folder, and out of the folders that the run makes itself."""
    parts = [part for part in relative.parts if part not in ("..", "/", "\\")]
    if len(parts) > 1 and parts[0].casefold() in RESERVED:
        parts[0] += "_"
    path = PurePath(*parts)
    stem = os.fsencode(path.stem)
    # The cut may split a character of several bytes, which is then dropped.
    return path if len(stem) <= _MAX_BYTES else path.with_stem(stem[:_MAX_BYTES].decode(errors="ignore"))


def _candidates(stem: str, name: str) -> Iterator[str]:
    yield stem
    yield name
    for number in count(2):
        yield f"{name}_{number}"


def _key(path: PurePath) -> str:
    """Names that differ only in case are one file on some systems."""
    return path.as_posix().casefold()


def _prefix(base: str) -> str | None:
    match = re.fullmatch(r"(.+)_\d+", base)
    return match[1] if match else None
