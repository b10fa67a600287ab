"""Finds the image files that annotations name."""

import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.errors import UserError
from yolo_cli.io.file_tree import files_below


class ImageFinder:
    """The images in the first of `folders` that has any, by the names under which annotations list them.

    Annotations carry paths of the machine that they were made on, with either kind of slash. Of several images of one
    name, the one is meant that has the given path in the folder, else the one whose path shares the most folders with
    the given path.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)

    @cached_property
    def _found(self) -> tuple[str, list[str]]:
        for folder in self.folders:
            found, _ = files_below(Path(folder), SUFFIXES)
            if found:
                return folder, found
        return self.folders[0], []

    @property
    def folder(self) -> str:
        """The first folder that has images."""
        return self._found[0]

    @property
    def files(self) -> list[str]:
        """All images in the folder."""
        return self._found[1]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for file in self.files:
            table.setdefault(_normal(os.path.basename(file)), []).append(file)
        return table

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for file in self.files:
            table.setdefault(_normal(Path(file).stem), []).append(file)
        return table

    def find(self, name: str) -> str:
        """The image of a name or path. Raises UserError where there is none, or several."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            raise UserError("an image without a name")
        candidates = self._by_name.get(_normal(parts[-1]), [])
        if len(candidates) > 1:
            exact = {os.path.join(folder, *parts) for folder in self.folders}
            candidates = [file for file in candidates if file in exact] or candidates
        return self._best(candidates, parts[:-1], name)

    def find_stem(self, stem: str, folders: Sequence[str]) -> str:
        """The image of a name without suffix, in folders of these names if there are several. Raises UserError."""
        return self._best(self._by_stem.get(_normal(stem), []), folders, stem)

    def _best(self, candidates: list[str], folders: Sequence[str], name: str) -> str:
        if len(candidates) > 1:
            shared = [_shared_folders(file, folders) for file in candidates]
            candidates = [file for file, count in zip(candidates, shared, strict=True) if count == max(shared)]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise UserError(f"several images are named {name}, such as {candidates[0]} and {candidates[1]}")
        raise UserError(f"no image {name}")


def _normal(name: str) -> str:
    """Letters with accents may be one character or two, depending on the system that wrote the name."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _shared_folders(file: str, folders: Sequence[str]) -> int:
    """How many folders at the end of a path have the given names."""
    count = 0
    for own, given in zip(reversed(Path(file).parent.parts), reversed(folders), strict=False):
        if _normal(own) != _normal(given):
            break
        count += 1
    return count
