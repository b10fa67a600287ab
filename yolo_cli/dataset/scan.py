"""Reading many images' sizes and labels, from folders and from tar shards, for the label index."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import FileIO

from yolo_cli.dataset.image_header import OPEN_FLAGS, SUFFIXES, BadImage, image_size, image_size_at
from yolo_cli.dataset.tar import BrokenTar, Member, members
from yolo_cli.dataset.yolo_labels import MAX_BYTES, parse_labels

SHARD = ".tar"


@dataclass(slots=True)
class ScanResult:
    """What was read of consecutive images: flat arrays, so that little is pickled between processes."""

    kept: bytearray = field(default_factory=bytearray)  # of loose files: one byte each, 1 where it is readable
    names: list[bytes] = field(default_factory=list)  # of a shard: its readable images, as paths behind the shard's own
    places: "array[int]" = field(default_factory=lambda: array("q"))  # and of each of these `LabelIndex.places`
    sizes: "array[int]" = field(default_factory=lambda: array("i"))  # height, width per readable image
    counts: "array[int]" = field(default_factory=lambda: array("q"))  # boxes per readable image
    classes: "array[int]" = field(default_factory=lambda: array("i"))
    boxes: "array[float]" = field(default_factory=lambda: array("f"))
    problems: list[tuple[str, int, str]] = field(default_factory=list)

    def add_size(self, file: str, measured: tuple[int, int] | Exception) -> bool:
        """Take in an image's size, or why it has none; false where it is left out."""
        if isinstance(measured, tuple):
            self.sizes.extend(measured)
            return True
        why = f"cannot be read ({measured.strerror})" if isinstance(measured, OSError) else str(measured)
        self.problems.append((file, 0, why))
        return False

    def add_labels(self, file: str, text: bytes, nc: int) -> None:
        """Take in the label file of the image whose size was added last."""
        if not text:
            self.counts.append(0)
            return
        found: list[tuple[int, str]] = []
        self.counts.append(parse_labels(text, nc, self.classes, self.boxes, found))
        self.problems.extend((file, line, what) for line, what in found)


def is_shard(file: str) -> bool:
    """Whether a file of a split is an archive of images rather than an image."""
    return file.lower().endswith(SHARD)


def label_path(image: str) -> str:
    """An image's label file: the last `/images/` becomes `/labels/` (else it lies beside the image), suffix .txt."""
    head, part, tail = image.rpartition(f"{os.sep}images{os.sep}")
    stem = os.path.splitext(f"{head}{os.sep}labels{os.sep}{tail}" if part else tail)[0]
    return f"{stem}.txt"


def scan_files(files: Sequence[str], nc: int) -> ScanResult:
    """Read images that are files of their own, and their label files."""
    chunk = ScanResult(kept=bytearray(len(files)))
    for i, file in enumerate(files):
        try:
            measured: tuple[int, int] | Exception = image_size(file)
        except (BadImage, OSError) as error:
            measured = error
        if not chunk.add_size(file, measured):
            continue
        chunk.kept[i] = 1
        label = label_path(file)
        try:
            text = _read(label)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                chunk.problems.append((label, 0, f"cannot be read ({error.strerror})"))
            text = b""
        chunk.add_labels(label, text, nc)
    return chunk


def scan_shard(shard: str, nc: int) -> ScanResult:
    """Read a tar archive's images, in the order of their names, and their labels, which lie in it as in a folder.

    Of files of one name the last counts, as it does for tar. What is wrong with the archive becomes a problem; what
    lies whole before that is read.
    """
    chunk = ScanResult()
    if os.path.exists(shard) and not os.path.isfile(shard):  # opening a pipe would wait
        chunk.add_size(shard, BadImage("is a device, a pipe or a folder, not a file"))
        return chunk
    try:
        with open(shard, "rb", buffering=0) as archive:
            table = _table(shard, archive, chunk)
            images = sorted(name for name in table if os.path.splitext(name)[1].lower() in SUFFIXES)
            for name in images:
                file, member = f"{shard}{os.sep}{name}", table[name]
                label = label_path(f"{os.sep}{name}")[len(os.sep) :]
                try:
                    measured: tuple[int, int] | Exception = image_size_at(archive.fileno(), member.start, member.length)
                except BadImage as error:
                    measured = error
                text = _within(archive, table.get(label))
                if chunk.add_size(file, measured):
                    chunk.names.append(os.fsencode(file))
                    chunk.places.extend((len(os.fsencode(shard)), member.start, member.length))
                    chunk.add_labels(f"{shard}{os.sep}{label}", text, nc)
    except OSError as error:
        chunk.add_size(shard, error)
    return chunk


def _table(shard: str, archive: FileIO, chunk: ScanResult) -> dict[str, Member]:
    table: dict[str, Member] = {}
    try:
        for member in members(archive):
            parts = [part for part in os.fsdecode(member.name).split("/") if part not in ("", ".")]
            if not parts or any(part.startswith(".") for part in parts):  # hidden, as in a folder, or leading outside
                continue
            name = os.sep.join(parts)
            if name in table:
                chunk.problems.append((f"{shard}{os.sep}{name}", 0, "comes twice in its shard; the last one counts"))
            table[name] = member
    except BrokenTar as error:
        chunk.problems.append((shard, 0, str(error)))
    return table


def _within(archive: FileIO, label: Member | None) -> bytes:
    if label is None:
        return b""
    archive.seek(label.start)
    return archive.read(min(label.length, MAX_BYTES + 1))


def read_range(shard: str, start: int, length: int) -> bytes:
    """A part of a file. Raises OSError; shorter than `length` where the file ends before."""
    with open(shard, "rb") as archive:
        archive.seek(start)
        return archive.read(length)


def _read(path: str) -> bytes:
    """A whole file with as few system calls as a small one needs."""
    handle = os.open(path, OPEN_FLAGS)
    try:
        text = os.read(handle, 65536)
        if len(text) == 65536:
            parts = [text]
            while part := os.read(handle, 2**22):
                parts.append(part)
                if len(parts) > 32:  # far beyond any label file; the parser refuses it by its size
                    break
            text = b"".join(parts)
        return text
    finally:
        os.close(handle)
