"""What `train:`, `val:` and `test:` of a data.yaml name, and where it is on the disk."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_cli.dataset.shards.urls import check_url, expand_ranges, is_shard, is_url
from yolo_cli.errors import UserError

_KEYS = ("images", "annotations", "list")
_IGNORE_DIFFICULT = "ignore_difficult"


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One entry of a split.

    A bare path is an image folder, a txt list, an image, a tar shard or its URL, an annotation file or a folder of
    those. With `annotations` (a file or folder), `path` is the folder of the images. `listed` is a txt list of those
    that are used.
    With `ignore_difficult`, objects that VOC calls difficult are regions to be ignored.
    """

    path: str
    annotations: str = ""
    listed: str = ""
    ignore_difficult: bool = False

    def __str__(self) -> str:
        return self.annotations or self.path

    def paths(self) -> tuple[str, ...]:
        """All paths, each of which must exist."""
        return tuple(path for path in (self.path, self.annotations, self.listed) if path)

    def to_value(self) -> str | dict[str, str | bool]:
        """The entry as it is written in a data.yaml."""
        if not self.annotations and not self.listed:
            return self.path
        values = dict(zip(_KEYS, (self.path, self.annotations, self.listed), strict=True))
        return {key: value for key, value in (values | {_IGNORE_DIFFICULT: self.ignore_difficult}).items() if value}


def parse_entries(value: Any, name: str, source: Path) -> tuple[SplitEntry, ...]:
    """The entries of a split. Raises UserError for anything but paths, URLs of tar shards and mappings of paths."""
    entries = [_parse_entry(entry, name, source) for entry in (value if isinstance(value, list) else [value])]
    return tuple(single for entry in entries for single in _expand(entry, name, source))


def _expand(entry: SplitEntry, name: str, source: Path) -> list[SplitEntry]:
    """The entries that `train-{000..041}.tar` stands for; any other is returned as it is."""
    for url in filter(is_url, (entry.annotations, entry.listed)):
        raise UserError(f"{name}: {url}: only tar shards can be at a URL", where=source)
    if is_url(entry.path):
        check_url(entry.path, f"{source}: {name}")
    if not is_shard(entry.path) or entry.annotations or entry.listed:
        return [entry]
    return [SplitEntry(path) for path in expand_ranges(entry.path, f"{source}: {name}")]


def _parse_entry(entry: Any, name: str, source: Path) -> SplitEntry:
    if isinstance(entry, str) and entry.strip():
        return SplitEntry(entry.strip())
    if not isinstance(entry, dict):
        raise UserError(f"{name}: a path, a list of paths, or {{images: …, annotations: …}} is expected", where=source)
    if unknown := [key for key in entry if key not in (*_KEYS, _IGNORE_DIFFICULT)]:
        raise UserError(f"{name}: {unknown[0]!r} is not one of {', '.join((*_KEYS, _IGNORE_DIFFICULT))}", where=source)
    if not all(isinstance(entry.get(key, "."), str) and entry.get(key, ".").strip() for key in _KEYS):
        raise UserError(f"{name}: images, annotations and list are paths", where=source)
    ignore_difficult = entry.get(_IGNORE_DIFFICULT, False)
    if not isinstance(ignore_difficult, bool):
        raise UserError(f"{name}: {_IGNORE_DIFFICULT} is true or false", where=source)
    images, annotations, listed = (entry.get(key, "").strip() for key in _KEYS)
    if not images and not annotations:
        raise UserError(f"{name}: a list needs `images` or `annotations`, too", where=source)
    if not images:
        return SplitEntry(annotations, "", listed, ignore_difficult)
    return SplitEntry(images, annotations, listed, ignore_difficult)


def locate(root: Path, given: str) -> Path | None:
    """The path of a file or folder of a dataset, or None where it does not exist."""
    relative = Path(os.path.expanduser(given))
    path = Path(os.path.abspath(root / relative))
    if os.path.exists(path):  # unlike Path.exists, False for an invalid name
        return path
    # Annotation tools export `../train/images` in a YAML that is in the same folder as `train`.
    parts = [part for part in relative.parts if part != ".."]
    if relative.parts[:1] == ("..",) and os.path.exists(path := root.joinpath(*parts)):
        return path
    return None
