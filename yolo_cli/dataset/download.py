"""Fetch a dataset's archive and unpack it: checked, bounded, and never outside its folder."""

import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from yolo_cli.errors import UserError
from yolo_cli.io.fetch import fetch_file
from yolo_cli.progress import Reporter

MAX_RATIO = 30  # unpacked to packed; images hardly compress, so more is a bomb
ALLOWANCE = 2**30  # bytes that may be unpacked beyond the ratio (label files compress well)
MAX_MEMBERS = 5_000_000
MAX_HEADER = 2**20  # bytes of a tar's extended header, which is read as a whole
MAX_LZMA = 2**28  # bytes that its decoder may take

_BLOCK = 2**20


def fetch_archive(url: str, sha256: str, folder: Path, *, holds: str, reporter: Reporter, source: Path) -> None:
    """Download a zip or tar archive and unpack it as `folder`, which appears whole or not at all.

    `holds` is a path that must be in it: at the top of the archive, or under its single top folder. Raises UserError
    where it cannot be fetched (saying what to do instead), its hash differs, or it is unsafe.
    """
    notice = f"{source.stem} is not on this machine: downloading it from {url} to {folder}"
    remedy = (
        f"fetch {url} yourself, unpack it, and set YOLO_DATASETS to the folder that then holds it "
        f"(or `path` in {source})"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
            archive, unpacked = Path(work) / "archive", Path(work) / "unpacked"
            digest = fetch_file(url, archive, notice=notice, offline_fix=remedy, reporter=reporter)
            if sha256 and digest != sha256:
                raise UserError(f"sha256 of {url} is {digest}, not {sha256}", where=source, fix="do not use this file")
            unpack(archive, unpacked)
            archive.unlink()
            inner = _folder_holding(unpacked, holds)
            if inner is None:
                raise UserError(f"the archive {url} holds no {holds}", where=source)
            move_into_place(inner, folder)
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror or error})",
            where=folder,
            fix="make room there, or set YOLO_CACHE_DIR to another folder",
        ) from None


def move_into_place(made: Path, folder: Path) -> None:
    """Rename a finished folder; where another process was first, its result stands."""
    try:
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir() or not any(folder.iterdir()):
            raise


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    kind: str  # "file", "folder", or what it is instead
    open: Callable[[], IO[bytes] | None]


class _BoundedInfo(tarfile.TarInfo):
    """A tar's member; an extended header is read as a whole, so a small packed file could fill memory with one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedInfo":
        """From a header block."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and info.size > MAX_HEADER:
            raise UserError(f"unsafe archive: an extended header of {info.size} bytes")
        return info


_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What the standard library raises for archives that are cut off or make no sense.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar into a new folder.

    Raises UserError, and leaves nothing outside `folder`, for members that would leave it, links, devices, and
    contents out of proportion to the archive (zip bombs).
    """
    limit = archive.stat().st_size * MAX_RATIO + ALLOWANCE
    folder.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _write_members(_zip_members(packed), folder, archive, limit)
        else:
            with _opened_tar(archive) as tape:
                _write_members(_tar_members(tape), folder, archive, limit)
    except _DAMAGE as error:
        raise UserError(f"the archive is damaged ({error})", where=archive.name, fix="try again") from None


def _opened_tar(archive: Path) -> tarfile.TarFile:
    with archive.open("rb") as file:
        start = file.read(2**12)
    mode = next((mode for magic, mode in _PACKED.items() if start.startswith(magic)), "r:")
    if mode == "r:xz":  # its header names the memory that the decoder takes
        lzma.LZMADecompressor(memlimit=MAX_LZMA).decompress(start, max_length=1)
    try:
        return tarfile.open(archive, mode, tarinfo=_BoundedInfo)  # type: ignore[call-overload]
    except (tarfile.TarError, OSError, EOFError):
        raise UserError("the download is neither a zip nor a tar archive", where=archive.name) from None


# Of tars. A bare .lzma has no magic of its own: any bytes may pass for one, and ask for gigabytes.
_PACKED = {b"\x1f\x8b": "r:gz", b"BZh": "r:bz2", b"\xfd7zXZ\0": "r:xz"}


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        if info.compress_type == zipfile.ZIP_LZMA:  # a member names the memory that its decoder takes, up to 4 GiB
            raise NotImplementedError("LZMA within a zip")
        unix_kind = info.external_attr >> 16 & 0o170000
        kind = "folder" if info.is_dir() else "file" if unix_kind in (0, 0o100000) else "link or device"
        yield _Member(info.filename, info.file_size, kind, lambda info=info: packed.open(info))  # type: ignore[misc]


def _tar_members(tape: tarfile.TarFile) -> Iterator[_Member]:
    for info in tape:
        kind = "folder" if info.isdir() else "file" if info.isfile() else "link or device"
        yield _Member(info.name, info.size, kind, lambda info=info: tape.extractfile(info))  # type: ignore[misc]


def _write_members(members: Iterator[_Member], folder: Path, archive: Path, limit: int) -> None:
    total = 0
    for count, member in enumerate(members):
        path = PurePosixPath(member.name)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in member.name or PureWindowsPath(member.name).drive
        if unsafe or "\0" in member.name:
            raise UserError(f"unsafe archive: {member.name!r} would leave its folder", where=archive.name)
        if member.kind not in ("file", "folder"):
            raise UserError(f"unsafe archive: {member.name!r} is a {member.kind}", where=archive.name)
        if count > MAX_MEMBERS:
            raise UserError(f"unsafe archive: more than {MAX_MEMBERS:,} members", where=archive.name)
        target = folder.joinpath(*path.parts)
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        total += member.size
        if total > limit:
            raise UserError("unsafe archive: it unpacks to far more than its own size", where=archive.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as out:
            stream = member.open()
            if stream is not None:
                with stream:
                    shutil.copyfileobj(stream, out, _BLOCK)


def _folder_holding(unpacked: Path, holds: str) -> Path | None:
    tops = [path for path in unpacked.iterdir() if path.name != "__MACOSX"]
    for folder in (unpacked, *tops):
        if (folder / holds).exists():
            return folder
    return None
