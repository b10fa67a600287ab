"""An image's displayed size, and whether its file is complete, decoding only rare formats.

JPEG and PNG headers are read here: Pillow takes three times as long, and refuses PNGs that every viewer shows (a wrong
checksum of a comment, say). For other formats, Pillow reads the size before OpenCV decodes the file, except for two
that it lacks.
"""

import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from io import BytesIO

import cv2
import numpy as np
from PIL import BmpImagePlugin, Image, TiffImagePlugin, WebPImagePlugin

SUFFIXES = frozenset((".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
MIN_SIDE = 4  # pixels
MAX_PIXELS = 2**28  # about 268 megapixels; beyond, it is a decompression bomb or a broken header
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # does not wait for a pipe
SWAPS_AXES = (5, 6, 7, 8)  # EXIF orientations that exchange width and height

_FIRST = 2048  # bytes that hold the size of most JPEGs; more is read where it does not
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))  # of a segment; markers alone
# Created directly: Image.open has a lower limit of its own, which is a setting of the whole process.
_PLUGINS: dict[tuple[bytes, ...], Callable[[BytesIO], Image.Image]] = {
    (b"BM",): BmpImagePlugin.BmpImageFile,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): TiffImagePlugin.TiffImageFile,
    (b"RIFF",): WebPImagePlugin.WebPImageFile,
}

Size = tuple[int, int]  # height, width
Reader = Callable[[int, int], bytes]  # the bytes of an image from a position on, at most a count; fewer at its end


class BadImage(Exception):
    """Why an image file cannot be used."""


def image_size(path: str) -> Size:
    """(height, width) of an image as displayed, EXIF orientation applied.

    Raises BadImage for a file that is empty, cut off, of absurd size, or no image; OSError where it cannot be read.
    """
    handle = os.open(path, OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # a device may be endless
            raise BadImage("is a device, a pipe or a folder, not a file")
        return _size(_Content(handle, 0, None))
    finally:
        os.close(handle)


def image_size_at(handle: int, start: int, length: int) -> Size:
    """`image_size` for the `length` bytes of an open file from byte `start`."""
    return _size(_Content(handle, start, length))


def check_claims(data: bytes) -> None:
    """Check an image that OpenCV is to decode, before it takes memory for what the header claims.

    Raises BadImage for more pixels than are accepted, a PNG chunk beyond the end of the file, and data that is no
    image. JPEGs pass: simplejpeg reads their size before it decodes them.
    """
    if data.startswith(b"\xff\xd8"):
        return
    if not data.startswith(_PNG):
        check_size(*_claimed_size(data))
        return
    check_size(*_png_size(data))
    for kind, start, length in _png_chunks(_reader(data), len(data)):
        if start + length + 4 > len(data):
            raise BadImage(f"truncated PNG (a chunk of {length} bytes goes beyond its end)")
        if kind == b"IEND":
            break


def check_size(height: int, width: int) -> None:
    """Raises BadImage for a size that is not accepted."""
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise BadImage(
            f"{width}×{height} pixels; at least {MIN_SIDE} per side and at most {MAX_PIXELS:.2g} in all are accepted"
        )


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 … 8; 1 where there is none."""
    try:
        return _jpeg_header(_reader(data))[1]
    except BadImage:  # the decoder reports the error
        return 1


def png_orientation(data: bytes) -> int:
    """The orientation in a PNG's eXIf chunk before the pixels, 1 … 8; 1 where there is none."""
    return _png_orientation(_reader(data), len(data))


class _Content:
    """The bytes of an image, which is a file or a part of one. Positions are relative to the image's first byte."""

    __slots__ = ("_handle", "_length", "_start", "first")

    def __init__(self, handle: int, start: int, length: int | None) -> None:
        self._handle, self._start, self._length = handle, start, length
        if start:
            os.lseek(handle, start, os.SEEK_SET)
        self.first = os.read(handle, _FIRST if length is None else min(_FIRST, length))

    def length(self) -> int:
        if self._length is None:
            self._length = os.lseek(self._handle, 0, os.SEEK_END)
        return self._length

    def read(self, start: int, count: int) -> bytes:
        if start + count <= len(self.first):
            return self.first[start : start + count]
        count = min(count, self.length() - start)
        if count <= 0:
            return b""
        os.lseek(self._handle, self._start + start, os.SEEK_SET)
        return os.read(self._handle, count)

    def read_from(self, start: int) -> bytes:
        parts, left = [], self.length() - start
        os.lseek(self._handle, self._start + start, os.SEEK_SET)
        while left > 0 and (part := os.read(self._handle, min(2**24, left))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _reader(data: bytes) -> Reader:
    return lambda start, count: data[start : start + count]


def _size(content: _Content) -> Size:
    first = content.first
    if not first:
        raise BadImage("empty file (zero bytes)")
    if first.startswith(b"\xff\xd8"):
        size, orientation, scan = _jpeg_header(content.read)
        if size is None:
            raise BadImage("JPEG without a size")
        end = content.length() - 2
        # Cameras and editors append data after the end marker, so it is searched in all data after the scan's start.
        # Within the scan's data the two bytes cannot occur (T.81 B.1.1.5).
        if content.read(end, 2) != b"\xff\xd9" and (end < scan or b"\xff\xd9" not in content.read_from(scan)):
            raise BadImage("truncated JPEG (its data ends before the end marker)")
    elif first.startswith(_PNG):
        size, length = _png_size(first), content.length()
        if length < 45 or (content.read(length - 8, 8) != _PNG_END and _PNG_END not in content.read_from(33)):
            raise BadImage("truncated PNG (it has no end chunk)")
        orientation = _png_orientation(content.read, length)
    else:
        size, orientation = _decoded_size(content.read_from(0)), 1
    check_size(*size)
    return size[::-1] if orientation in SWAPS_AXES else size


def _jpeg_header(read: Reader) -> tuple[Size | None, int, int]:
    """(height, width), EXIF orientation, and where the scan begins (ITU-T T.81, annex B)."""
    size, orientation, at = None, 0, 2
    while True:
        head = read(at, 4)
        if len(head) < 4:
            raise BadImage("truncated JPEG (it ends in its header)")
        if head[0] != 0xFF:
            raise BadImage("broken JPEG header")
        marker = head[1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker == 0xD9:
            raise BadImage("JPEG without image data")
        length = head[2] << 8 | head[3]
        if marker in _START_OF_FRAME:
            frame = read(at + 5, 4)
            if len(frame) == 4:
                size = (frame[0] << 8 | frame[1], frame[2] << 8 | frame[3])
        elif marker == 0xE1 and not orientation:
            segment = read(at + 4, length - 2)
            orientation = _exif_orientation(segment[6:]) if segment.startswith(b"Exif\0\0") else 0
        elif marker == 0xDA:
            return size, orientation or 1, at
        at += 2 + length


def _png_size(first: bytes) -> Size:
    if len(first) < 33 or first[12:16] != b"IHDR":
        raise BadImage("broken PNG header")
    width, height = struct.unpack(">II", first[16:24])
    return height, width


def _png_chunks(read: Reader, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, position of the content and length of each chunk after the header, up to the end of the file."""
    at = 33
    while at + 8 <= end:
        length, kind = struct.unpack(">I4s", read(at, 8))
        yield kind, at + 8, length
        at += 12 + length


def _png_orientation(read: Reader, end: int) -> int:
    for kind, start, length in _png_chunks(read, end):  # a long color profile may come before it
        if kind == b"eXIf":
            return _exif_orientation(read(start, min(length, 65536)))
        if kind in (b"IDAT", b"IEND"):
            break
    return 1


def _exif_orientation(tiff: bytes) -> int:
    """The orientation tag (0x0112) of EXIF data, 1 … 8; 1 where it is absent or broken (Exif 2.32, 4.6).

    Pillow would warn on the user's terminal about every camera that writes other tags wrongly.
    """
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


def _decoded_size(data: bytes) -> Size:
    """(height, width) of an image that has to be decoded to find out whether it is complete."""
    check_claims(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a size beyond OpenCV's own bounds
        image = None
    if image is None:
        raise BadImage("not an image that can be read")
    return image.shape[0], image.shape[1]


def _claimed_size(data: bytes) -> Size:
    if data.startswith(b"#?R"):  # Radiance HDR
        rows, columns = (re.search(rb"[-+]%c\s+(\d{1,9})" % axis, data[:4096]) for axis in b"YX")
        return (int(rows[1]), int(columns[1])) if rows and columns else (0, 0)
    if data.startswith(b"v/1\x01"):  # OpenEXR
        window = re.search(rb"dataWindow\0box2i\0.{4}(.{16})", data, re.DOTALL)
        left, top, right, bottom = struct.unpack("<4i", window[1]) if window else (0, 0, -1, -1)
        return bottom - top + 1, right - left + 1
    open_image = next((plugin for magic, plugin in _PLUGINS.items() if data.startswith(magic)), Image.open)
    try:
        with open_image(BytesIO(data)) as image:
            return image.height, image.width
    except Exception:  # Pillow's plugins raise errors of many kinds for damaged files
        raise BadImage("not an image that can be read") from None
