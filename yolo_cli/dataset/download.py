"""Downloads a dataset's archive and unpacks it: checked, bounded, and never outside its folder.

The same rules hold for zip and tar, and no link is ever created. tarfile's data filter is not relied on: Python before
3.11.4 lacks it, before 3.11.13 links could bypass it, and it does not exist for zip.
"""

import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.fetch import fetch_file
from yolo_cli.progress import Reporter

MAX_RATIO = 30  # of unpacked to packed size; images hardly compress, so more is a bomb
ALLOWANCE = 2**30  # bytes that may be unpacked beyond the ratio (label files compress well)
MAX_MEMBERS = 5_000_000
MAX_HEADER = 2**20  # bytes of an extended header of a tar, which is read as a whole
MAX_LZMA = 2**28  # bytes of memory for the xz decoder

_BLOCK = 2**20


def fetch_archive(url: str, sha256: str, folder: Path, *, holds: str, reporter: Reporter, source: Path) -> None:
    """Download a zip or tar archive and unpack it as `folder`, which appears complete or not at all.

    The path `holds` must exist in the archive, at its top or in one of its top folders. Raises UserError where the
    archive cannot be downloaded (with an alternative), its hash differs, or it is unsafe.
    """
    notice = f"{source.stem} is not on this machine: downloading it from {url} to {folder}"
    offline_fix = (
        f"fetch {url} yourself, unpack it, and set YOLO_DATASETS to the folder that then holds it "
        f"(or `path` in {source})"
    )
    with atomic_folder(folder) as complete:
        archive, unpacked = complete.with_name("archive"), complete.with_name("unpacked")
        digest = fetch_file(url, archive, notice=notice, offline_fix=offline_fix, reporter=reporter)
        if sha256 and digest != sha256:
            raise UserError(f"sha256 of {url} is {digest}, not {sha256}", where=source, fix="do not use this file")
        unpack(archive, unpacked)
        archive.unlink()
        inner = _folder_holding(unpacked, holds)
        if inner is None:
            raise UserError(f"the archive {url} has no {holds}", where=source)
        os.rename(inner, complete)


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    kind: str  # "file", "folder" or "link or device"
    open: Callable[[], IO[bytes] | None]


class _BoundedInfo(tarfile.TarInfo):
    """A TarInfo that refuses large extended headers, which tarfile reads into memory as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedInfo":
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
# What the standard library raises for damaged archives.
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

    Raises UserError for members outside the folder, links, devices, and contents out of proportion to the archive (zip
    bombs). Nothing is ever written outside `folder`.
    """
    limit = archive.stat().st_size * MAX_RATIO + ALLOWANCE
    folder.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _write_members(_zip_members(packed), folder, archive, limit)
        else:
            with _open_tar(archive) as tape:
                _write_members(_tar_members(tape), folder, archive, limit)
    except _DAMAGE as error:
        raise UserError(f"the archive is damaged ({error})", where=archive.name, fix="try again") from None


def _open_tar(archive: Path) -> tarfile.TarFile:
    with archive.open("rb") as file:
        start = file.read(2**12)
    mode = next((mode for magic, mode in _PACKED.items() if start.startswith(magic)), "r:")
    if mode == "r:xz":  # its header sets the memory that the decoder takes
        lzma.LZMADecompressor(memlimit=MAX_LZMA).decompress(start, max_length=1)
    try:
        return tarfile.open(archive, mode, tarinfo=_BoundedInfo)  # type: ignore[call-overload]
    except (tarfile.TarError, OSError, EOFError):
        raise UserError("the download is neither a zip nor a tar archive", where=archive.name) from None


# Compressed tars. Bare .lzma is missing: it has no magic number, and any bytes could pass for one that needs gigabytes.
_PACKED = {b"\x1f\x8b": "r:gz", b"BZh": "r:bz2", b"\xfd7zXZ\0": "r:xz"}


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        if info.compress_type == zipfile.ZIP_LZMA:  # a member sets the memory that its decoder takes, up to 4 GiB
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
