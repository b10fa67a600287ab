"""What an image file claims to be, before a decoder takes memory for it on the file's word."""

import re
import struct
from collections.abc import Callable

MIN_SIDE = 4  # pixels
MAX_PIXELS = 2**28  # about 268 megapixels; beyond, it is a decompression bomb or a broken header
_BOXES = 2**16  # bytes in which the boxes of JPEG 2000 and AVIF name the size

Size = tuple[int, int]  # width, height


class BadImage(Exception):
    """Why an image file cannot be used."""


def check_claims(data: bytes) -> None:
    """Raises BadImage for a file whose header claims more pixels than are accepted, or more bytes than it has.

    JPEGs are not looked at: their decoder asks for their size first. Of a format that is not known here, or a broken
    header, nothing is said; the decoder has bounds of its own.
    """
    for pattern, claimed in _FORMATS:
        if pattern.match(data):
            try:
                width, height = claimed(data)
            except (
                ArithmeticError,
                LookupError,
                ValueError,
                struct.error,
            ):  # a header that is cut off or makes no sense
                return
            if abs(width * height) > MAX_PIXELS:
                raise BadImage(f"{width}×{height} pixels, of which {MAX_PIXELS:.2g} are accepted")
            return


def _png(data: bytes) -> Size:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise BadImage(f"truncated PNG (a chunk of {length} bytes goes beyond its end)")
        if kind == b"IEND":
            break
        at += 12 + length
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, height


def _tiff(data: bytes) -> Size:
    """Tags 256 and 257 of the first directory (TIFF 6.0, section 2; BigTIFF with wider fields)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    first, step, value_at = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    found = {256: 0, 257: 0}
    for entry in range(first, min(first + step * count, len(data)), step):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in found:
            found[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + value_at)[0]
    return found[256], found[257]


def _webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _ras(data: bytes) -> Size:
    width, height = struct.unpack_from(">ii", data, 4)
    return width, height


def _pnm(data: bytes) -> Size:
    if data[:2] == b"P7":
        return _said(rb"WIDTH\s+(\d{1,19})", data), _said(rb"HEIGHT\s+(\d{1,19})", data)
    words = re.sub(rb"#[^\r\n]*", b" ", data[:4096]).split(maxsplit=3)
    return int(words[1][:19]), int(words[2][:19]) if len(words) > 2 else 0


def _hdr(data: bytes) -> Size:
    return _said(rb"[-+]X\s+(\d{1,19})", data), _said(rb"[-+]Y\s+(\d{1,19})", data)


def _exr(data: bytes) -> Size:
    at = data.index(b"dataWindow\0box2i\0") + 17
    left, top, right, bottom = struct.unpack_from("<4i", data, at + 4)
    return right - left + 1, bottom - top + 1


def _boxed(data: bytes) -> Size:
    """The largest of what JPEG 2000's `ihdr` (height first) and AVIF's `ispe` boxes say."""
    head = data[:_BOXES]
    found = [struct.unpack(">II", match[1])[::-1] for match in re.finditer(rb"ihdr(.{8})", head, re.DOTALL)]
    found += [struct.unpack(">II", match[1]) for match in re.finditer(rb"ispe.{4}(.{8})", head, re.DOTALL)]
    width, height = max(found, key=lambda size: size[0] * size[1], default=(0, 0))
    return width, height


def _codestream(data: bytes) -> Size:
    """SIZ of a bare JPEG 2000 codestream (ITU-T T.800 A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    return right - left, bottom - top


def _said(pattern: bytes, data: bytes) -> int:
    match = re.search(pattern, data[:4096])
    return int(match[1]) if match else 0


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Size]], ...] = tuple(
    (re.compile(magic, re.DOTALL), claimed)
    for magic, claimed in (
        (rb"\x89PNG", _png),
        (rb"BM", _bmp),
        (rb"II[*+]\0|MM\0[*+]", _tiff),
        (rb"RIFF.{4}WEBP", _webp),
        (rb"GIF8", _gif),
        (rb"\x59\xa6\x6a\x95", _ras),
        (rb"P[1-7Ff]\s", _pnm),
        (rb"#\?R", _hdr),
        (rb"v/1\x01", _exr),
        (rb"\xff\x4f\xff\x51", _codestream),
        (rb".{4}(ftyp|jP  )", _boxed),
    )
)
