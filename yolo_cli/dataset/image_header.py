"""An image's displayed size and soundness from a few bytes of its file: JPEG and PNG without decoding them."""

import os
import stat
import struct

import cv2
import numpy as np

from yolo_cli.dataset.image_bounds import MAX_PIXELS, MIN_SIDE, BadImage, check_claims

WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height

SUFFIXES = frozenset((".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))

_FIRST = 2048  # holds the size of most JPEGs; more is read where it does not
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


def image_size(path: str) -> tuple[int, int]:
    """(height, width) of an image as displayed, EXIF orientation applied.

    Raises BadImage for a file that is empty, cut off, of absurd size, or no image; OSError where it cannot be read.
    """
    handle = os.open(path, WITHOUT_WAITING)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # a device may give bytes without end
            raise BadImage("is a device, a pipe or a folder, not a file")
        return _size(_Content(handle, 0, None))
    finally:
        os.close(handle)


def image_size_within(handle: int, start: int, length: int) -> tuple[int, int]:
    """The same of an image that is `length` bytes of an open file, from `start` on."""
    return _size(_Content(handle, start, length))


class _Content:
    """The bytes of an image, a whole file or a part of one; positions count from its beginning."""

    __slots__ = ("_handle", "_length", "_start", "first")

    def __init__(self, handle: int, start: int, length: int | None) -> None:
        self._handle, self._start, self._length = handle, start, length
        if start:
            os.lseek(handle, start, os.SEEK_SET)
        self.first = os.read(handle, _FIRST if length is None else min(_FIRST, length))

    def end(self) -> int:
        if self._length is None:
            self._length = os.lseek(self._handle, 0, os.SEEK_END)
        return self._length

    def at(self, start: int, count: int) -> bytes:
        if start + count <= len(self.first):
            return self.first[start : start + count]
        count = min(count, self.end() - start)
        if count <= 0:
            return b""
        os.lseek(self._handle, self._start + start, os.SEEK_SET)
        return os.read(self._handle, count)

    def rest(self, start: int) -> bytes:
        parts, left = [], self.end() - start
        os.lseek(self._handle, self._start + start, os.SEEK_SET)
        while left > 0 and (part := os.read(self._handle, min(2**24, left))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _size(content: _Content) -> tuple[int, int]:
    if not content.first:
        raise BadImage("empty file (zero bytes)")
    if content.first.startswith(b"\xff\xd8"):
        height, width = _jpeg_size(content)
    elif content.first.startswith(_PNG):
        height, width = _png_size(content)
    else:
        height, width = _decoded_size(content)
    if height < MIN_SIDE or width < MIN_SIDE or height * width > MAX_PIXELS:
        raise BadImage(f"image of {width}×{height} pixels (from {MIN_SIDE} a side up to {MAX_PIXELS:.2g} are accepted)")
    return height, width


def _jpeg_size(content: _Content) -> tuple[int, int]:
    """ITU-T T.81 annex B: walk the marker segments up to the scan."""
    size, turned, at = None, False, 2
    while True:
        head = content.at(at, 4)
        if len(head) < 4:
            raise BadImage("truncated JPEG (it ends in its header)")
        if head[0] != 0xFF:
            raise BadImage("broken JPEG header")
        marker = head[1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker == 0xD9:
            raise BadImage("JPEG without image data")
        length = head[2] << 8 | head[3]
        if marker in _SOF:
            frame = content.at(at + 5, 4)
            if len(frame) == 4:
                size = struct.unpack(">HH", frame)
        elif marker == 0xE1 and not turned:
            turned = exif_orientation(content.at(at + 4, length - 2)) in TURNED
        elif marker == 0xDA:
            break
        at += 2 + length
    if size is None:
        raise BadImage("JPEG without a size")
    end = content.end() - 2
    # Cameras and editors append data behind the end marker, so only its absence from the whole rest is an error; within
    # the scan's data the two bytes cannot occur (T.81 B.1.1.5).
    if content.at(end, 2) != b"\xff\xd9" and (end < at or b"\xff\xd9" not in content.rest(at)):
        raise BadImage("truncated JPEG (its data ends before the end marker)")
    return (size[1], size[0]) if turned else (size[0], size[1])


def _png_size(content: _Content) -> tuple[int, int]:
    first = content.first
    if len(first) < 33 or first[12:16] != b"IHDR":
        raise BadImage("broken PNG header")
    width, height = struct.unpack(">II", first[16:24])
    end = content.end()
    if end < 45 or (content.at(end - 8, 8) != _PNG_END and _PNG_END not in content.rest(33)):
        raise BadImage("truncated PNG (it has no end chunk)")
    if _png_turn(content, end) in TURNED:
        width, height = height, width
    return height, width


def _png_turn(content: _Content, end: int) -> int:
    """The orientation in the eXIf chunk, which may stand behind a long colour profile; 1 where there is none."""
    at = 8
    while at + 8 <= end:
        length, kind = struct.unpack(">I4s", content.at(at, 8))
        if kind == b"eXIf":
            return exif_orientation(b"Exif\0\0" + content.at(at + 8, min(length, 65536)))
        if kind in (b"IDAT", b"IEND"):
            break
        at += 12 + length
    return 1


def _decoded_size(content: _Content) -> tuple[int, int]:
    data = content.rest(0)
    check_claims(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a size beyond OpenCV's own bounds
        image = None
    if image is None:
        raise BadImage("not an image that can be read")
    return image.shape[0], image.shape[1]


def png_orientation(data: bytes) -> int:
    """The orientation of a PNG's eXIf chunk where it stands before the pixels, else 1."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"eXIf":
            return exif_orientation(b"Exif\0\0" + data[at + 8 : at + 8 + length])
        if kind in (b"IDAT", b"IEND"):
            break
        at += 12 + length
    return 1


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a whole JPEG file, 1 … 8; 1 where there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in (0xDA, 0xD9):
            break
        else:
            length = data[at + 2] << 8 | data[at + 3]
            if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                return exif_orientation(data[at + 4 : at + 2 + length])
            at += 2 + length
    return 1


def exif_orientation(segment: bytes) -> int:
    """The orientation tag (0x0112) of an Exif segment, 1 … 8; 1 where it is absent or broken (Exif 2.32, 4.6)."""
    if segment[:6] != b"Exif\0\0" or len(segment) < 14:
        return 1
    tiff = segment[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
