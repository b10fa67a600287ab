"""Reads the sizes and labels of many images, from folders or tar shards, for the label index."""

import os
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import FileIO

from yolo_cli.dataset.image_header import OPEN_FLAGS, SUFFIXES, BadImage, image_size, image_size_at
from yolo_cli.dataset.shards.store import ShardState, fetch, read_block, shard_state
from yolo_cli.dataset.shards.urls import is_url
from yolo_cli.dataset.tar import BrokenTar, Member, members
from yolo_cli.dataset.yolo_labels import MAX_BYTES, parse_labels
from yolo_cli.errors import UserError


@dataclass(slots=True)
class ScanResult:
    """Sizes and labels of consecutive images, in flat arrays, which are cheap to pickle between processes."""

    readable: bytearray = field(default_factory=bytearray)  # per image file: 1 where it is readable; empty for a shard
    names: list[bytes] = field(default_factory=list)  # per readable image of a shard: the shard's path, then its name
    spans: "array[int]" = field(default_factory=lambda: array("q"))  # per such image: a row of `LabelIndex.spans`
    sizes: "array[int]" = field(default_factory=lambda: array("i"))  # height, width per readable image
    counts: "array[int]" = field(default_factory=lambda: array("q"))  # boxes per readable image
    classes: "array[int]" = field(default_factory=lambda: array("i"))
    boxes: "array[float]" = field(default_factory=lambda: array("f"))
    problems: list[tuple[str, int, str]] = field(default_factory=list)
    polygons: int = 0  # rows that are one; their enclosing boxes are read
    remote: dict[str, ShardState] = field(default_factory=dict)  # the shard, where it is at a URL

    def add_size(self, file: str, measured: tuple[int, int] | Exception) -> bool:
        """Append an image's size, or report why it has none; returns whether it has one."""
        if isinstance(measured, tuple):
            self.sizes.extend(measured)
            return True
        why = f"cannot be read ({measured.strerror})" if isinstance(measured, OSError) else str(measured)
        self.problems.append((file, 0, why))
        return False

    def add_labels(self, file: str, text: bytes, nc: int) -> None:
        """Append the labels of the image whose size was added last."""
        if not text:
            self.counts.append(0)
            return
        found: list[tuple[int, str]] = []
        rows, polygons = parse_labels(text, nc, self.classes, self.boxes, found)
        self.counts.append(rows)
        self.polygons += polygons
        self.problems.extend((file, line, what) for line, what in found)


def label_path(image: str) -> str:
    """The label file of an image: the last `/images/` becomes `/labels/`, if there is one, and the suffix .txt."""
    head, part, tail = image.rpartition(f"{os.sep}images{os.sep}")
    stem = os.path.splitext(f"{head}{os.sep}labels{os.sep}{tail}" if part else tail)[0]
    return f"{stem}.txt"


def scan_files(files: Sequence[str], nc: int) -> ScanResult:
    """Read the sizes of image files, and their label files."""
    result = ScanResult(readable=bytearray(len(files)))
    for i, file in enumerate(files):
        try:
            measured: tuple[int, int] | Exception = image_size(file)
        except (BadImage, OSError) as error:
            measured = error
        if not result.add_size(file, measured):
            continue
        result.readable[i] = 1
        label = label_path(file)
        try:
            text = _read(label)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                result.problems.append((label, 0, f"cannot be read ({error.strerror})"))
            text = b""
        result.add_labels(label, text, nc)
    return result


def scan_shard(shard: str, nc: int) -> ScanResult:
    """Read a tar archive's images, in the order of their names, and their labels, laid out as in a folder.

    Of several files of one name the last is used, as tar does. Damage to the archive becomes a problem, and the files
    before it are read. Raises UserError where a shard at a URL cannot be read.
    """
    result = ScanResult()
    if is_url(shard):
        _scan_remote(shard, nc, result)
    elif os.path.exists(shard) and not os.path.isfile(shard):  # opening a pipe would wait
        result.add_size(shard, BadImage("is a device, a pipe or a folder, not a file"))
    else:
        try:
            with open(shard, "rb", buffering=0) as archive:
                _scan_archive(shard, archive, nc, result)
        except OSError as error:
            result.add_size(shard, error)
    return result


def _scan_remote(url: str, nc: int, result: ScanResult) -> None:
    """Read a shard once, through a temporary file without a name, which no end of the process leaves behind.

    Requests for the headers alone would take longer: each header of a tar archive gives the position of the next.
    """
    state = shard_state(url)
    result.remote[url] = state
    try:
        with tempfile.TemporaryFile(buffering=0) as copy:
            fetch(url, state, copy)
            _scan_archive(url, copy, nc, result)
    except OSError as error:
        what = f"no temporary copy of {state.size / 1e6:.0f} MB can be made ({error.strerror})"
        raise UserError(what, where=url, fix="set TMPDIR to a folder with room") from None


def _scan_archive(shard: str, archive: FileIO, nc: int, result: ScanResult) -> None:
    table = _members_by_name(shard, archive, result)
    images = sorted(name for name in table if os.path.splitext(name)[1].lower() in SUFFIXES)
    for name in images:
        file, member = f"{shard}{os.sep}{name}", table[name]
        label = label_path(f"{os.sep}{name}")[len(os.sep) :]
        try:
            measured: tuple[int, int] | Exception = image_size_at(archive.fileno(), member.start, member.length)
        except BadImage as error:
            measured = error
        text = _read_label(archive, table.get(label))
        if result.add_size(file, measured):
            result.names.append(os.fsencode(file))
            result.spans.extend((len(os.fsencode(shard)), member.start, member.length))
            result.add_labels(f"{shard}{os.sep}{label}", text, nc)


def _members_by_name(shard: str, archive: FileIO, result: ScanResult) -> dict[str, Member]:
    table: dict[str, Member] = {}
    try:
        for member in members(archive):
            parts = [part for part in os.fsdecode(member.name).split("/") if part not in ("", ".")]
            if not parts or any(part.startswith(".") for part in parts):  # hidden, or outside the archive
                continue
            name = os.sep.join(parts)
            if name in table:
                result.problems.append((f"{shard}{os.sep}{name}", 0, "occurs twice in its shard; the last one is used"))
            table[name] = member
    except BrokenTar as error:
        result.problems.append((shard, 0, str(error)))
    return table


def _read_label(archive: FileIO, label: Member | None) -> bytes:
    if label is None:
        return b""
    archive.seek(label.start)
    return archive.read(min(label.length, MAX_BYTES + 1))


def read_range(shard: str, start: int, length: int) -> bytes:
    """`length` bytes of a shard from byte `start`; fewer where it ends earlier.

    Raises OSError, and UserError where a shard at a URL cannot be read.
    """
    if is_url(shard):
        return read_block(shard, start, length)
    with open(shard, "rb") as archive:
        archive.seek(start)
        return archive.read(length)


def _read(path: str) -> bytes:
    """The content of a file, in as few system calls as possible for a small one."""
    handle = os.open(path, OPEN_FLAGS)
    try:
        text = os.read(handle, 65536)
        if len(text) == 65536:
            parts = [text]
            while part := os.read(handle, 2**22):
                parts.append(part)
                if len(parts) > 32:  # more than MAX_BYTES, which the parser refuses
                    break
            text = b"".join(parts)
        return text
    finally:
        os.close(handle)
