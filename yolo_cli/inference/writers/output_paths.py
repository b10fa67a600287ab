"""Names of output files: the inputs' own, and never one for two inputs."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePath

from yolo_cli.inference.sources.frames import Frame, Source

RESERVED = frozenset(["crops", "features", "labels"])  # folders that a run makes itself
_LONGEST = 200  # bytes of a name: file systems take 255, and numbers and suffixes are added
# What pictures are written as under their own suffix; others become JPEGs.
WRITABLE = frozenset([".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])


@dataclass(frozen=True, slots=True)
class OutputPath:
    """Where a source's outputs go, relative to the run folder."""

    drawn: PurePath
    base: PurePath  # of its txt labels and crops, without a suffix

    def stem(self, frame: Frame) -> PurePath:
        """The base of one frame's files."""
        return self.base.with_name(f"{self.base.name}_{frame.number}") if frame.number else self.base


class Names:
    """Hands out output names; the second of two inputs that would share one gets its suffix or a number behind it."""

    def __init__(self) -> None:
        self._drawn: set[str] = set()
        self._bases: set[str] = set()
        self._prefixes: set[str] = set()  # bases with a last _NUMBER cut off: a video's frames would take these names
        self._videos: set[str] = set()

    def place(self, source: Source) -> OutputPath:
        """The place of a source, which is then taken."""
        moving = source.kind != "image"
        relative = _within(source.relative)
        suffix = ".mp4" if moving else relative.suffix if relative.suffix.lower() in WRITABLE else ".jpg"
        stem = relative.with_suffix("")
        bases = (stem.with_name(name) for name in _candidates(stem.name, relative.name))
        base = next(base for base in bases if self._is_free(base, moving=moving))
        drawn = stem.with_name(stem.name + suffix)
        if _key(drawn) in self._drawn:
            names = (stem.with_name(name + suffix) for name in _candidates(base.name, relative.name))
            drawn = next(name for name in names if _key(name) not in self._drawn)
        self._take(drawn, base, moving=moving)
        return OutputPath(drawn, base)

    def _is_free(self, base: PurePath, *, moving: bool) -> bool:
        own = _key(base)
        return own not in self._bases and _prefix(own) not in self._videos and not (moving and own in self._prefixes)

    def _take(self, drawn: PurePath, base: PurePath, *, moving: bool) -> None:
        own = _key(base)
        self._drawn.add(_key(drawn))
        self._bases.add(own)
        if moving:
            self._videos.add(own)
        if (prefix := _prefix(own)) is not None:
            self._prefixes.add(prefix)


def _within(relative: PurePath) -> PurePath:
    """The path as one of the run folder: not leading out of it, nor into the folders that the run makes itself."""
    parts = [part for part in relative.parts if part not in ("..", "/", "\\")]
    if len(parts) > 1 and parts[0].casefold() in RESERVED:
        parts[0] += "_"
    path = PurePath(*parts)
    stem = os.fsencode(path.stem)
    # Cutting may split a letter of several bytes, whose rest goes.
    return path if len(stem) <= _LONGEST else path.with_stem(stem[:_LONGEST].decode(errors="ignore"))


def _candidates(stem: str, name: str) -> Iterator[str]:
    yield stem
    yield name
    for number in count(2):
        yield f"{name}_{number}"


def _key(path: PurePath) -> str:
    """Names that differ in case alone are one file on some systems."""
    return path.as_posix().casefold()


def _prefix(base: str) -> str | None:
    match = re.fullmatch(r"(.+)_\d+", base)
    return match[1] if match else None
