"""Atomic writes: a file or folder appears complete or not at all, and an older file stays until then."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yolo_cli.errors import UserError


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = False, previous: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it is renamed to `path` when the block ends without an error.

    With `durable` the content is flushed to the device first. With `previous` the older file is kept under that name;
    at every moment, one of the two is complete. A file that is replaced passes on its mode, and one behind a symbolic
    link is replaced itself. Raises OSError where the folder or an existing file cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")  # also unique among hosts that share the folder
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | memoryview, *, what: str, previous: Path | None = None) -> None:
    """Write `data` to `path` through a durable `atomic_path`.

    Raises UserError, naming `what`, when the device is full or the folder cannot be written; an older file stays.
    """
    try:
        with atomic_path(path, durable=True, previous=previous) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = f"{'free some space; ' if full else ''}what was saved before is intact"
        raise UserError(f"{what} cannot be written ({error.strerror})", where=path, fix=fix) from None


@contextlib.contextmanager
def write_file(path: Path, *, what: str) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends without an error.

    Raises UserError, naming `what`, when the device is full or the folder cannot be written; an older file stays.
    """
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{what} cannot be written ({error.strerror})", where=path) from None


@contextlib.contextmanager
def atomic_folder(folder: Path, *, fix: str = "set YOLO_CACHE_DIR to another folder") -> Iterator[Path]:
    """A path for a new folder; what the block creates there is renamed to `folder` when it ends without an error.

    The path is in a temporary folder, which the block may use for other files. If another process was faster, its
    `folder` stays. Raises UserError, which suggests `fix`, where the folder cannot be written.
    """
    import tempfile  # noqa: PLC0415 - it takes 10 ms, and `yolo --help` imports this module

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
            yield Path(work) / "complete"
            try:
                os.rename(Path(work) / "complete", folder)
            except OSError:
                if not folder.is_dir() or not any(folder.iterdir()):
                    raise
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror or error})",
            where=folder,
            fix=f"make room there, or {fix}",
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of checkpoints that killed processes left in a folder that only yolo_cli writes to."""
    for left in folder.glob(".*.pt.*"):
        left.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that renames in it survive a crash of the machine. Not every system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse; the rename is done all the same
    finally:
        os.close(handle)
