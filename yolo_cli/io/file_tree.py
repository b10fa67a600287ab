"""The files in a folder and its subfolders."""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path


def files_below(folder: Path, suffixes: AbstractSet[str]) -> tuple[list[str], list[str]]:
    """Files with one of `suffixes` (lower case, such as ".jpg"), and the folders that cannot be read.

    Links to folders are followed, each folder once. Hidden files and folders are ignored. Folders and the files in
    them are in the order of their names.
    """
    found: list[str] = []
    unreadable: list[str] = []
    visited: set[tuple[int, int]] = set()
    for base, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(os.fspath(error.filename))
    ):
        state = os.stat(base)
        if (state.st_dev, state.st_ino) in visited:  # a link to a parent folder
            folders.clear()
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            os.path.join(base, name)
            for name in sorted(files)
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        )
    return found, unreadable
