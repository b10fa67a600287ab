"""Frames of single images, from files and URLs."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from yolo_cli.dataset.image_header import BadImage, image_size
from yolo_cli.dataset.images import decode_image, read_image
from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Frame, Skipped, Source

MAX_DOWNLOAD = 2**28  # bytes of one image
TIMEOUT = 30  # seconds without a response
_EXPANSION = 20  # assumed bytes of pixels per byte of a file, for formats whose headers are not read


def read_still(source: Source, reserved: int = 0) -> Frame | Skipped:
    """Read an image. `reserved` bytes of the memory limit go over to the result."""
    start = time.perf_counter()
    if isinstance(source.location, Path) and is_special(source.location):
        return Skipped(source, "a device or a pipe, not a file", reserved)
    try:
        if isinstance(source.location, Path):
            pixels = read_image(source.location)
        else:
            pixels = decode_image(fetch(str(source.location), source.name), source.name)
    except UserError as error:
        return Skipped(source, error.what, reserved)
    except (MemoryError, ValueError) as error:
        return Skipped(source, f"cannot be read as an image ({error})", reserved)
    return Frame(source, pixels, milliseconds={"read": 1000 * (time.perf_counter() - start)}, reserved=reserved)


def expected_bytes(source: Source) -> int:
    """The memory that an image's pixels will take: exact for JPEG and PNG, else an estimate."""
    path = source.location
    if not isinstance(path, Path):
        return 2**24
    if is_special(path):
        return 0
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith((b"\xff\xd8", b"\x89PNG")):
            height, width = image_size(str(path))
            return height * width * 3
        return os.path.getsize(path) * _EXPANSION
    except (OSError, BadImage, ValueError):
        return 0  # reading it reports the error


def is_special(path: Path) -> bool:
    """Whether the path is a device, a pipe or the like. Reading one might never end."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _open(url: str) -> http.client.HTTPResponse:
    return urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "yolo_cli"}), timeout=TIMEOUT)


def fetch(url: str, name: str) -> bytes:
    """Download an image. Raises UserError, in which the URL is called `name`."""
    if not url.lower().startswith(("http://", "https://")):
        raise UserError("URLs of this kind cannot be read", where=name, fix="give http or https")
    try:
        with _open(url) as response:
            if (kind := response.headers.get_content_maintype()) in ("multipart", "video", "audio"):
                raise UserError(f"not an image but {kind}/{response.headers.get_content_subtype()}", where=name)
            data = response.read(MAX_DOWNLOAD + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise UserError(f"cannot be fetched ({code}{getattr(error, 'reason', None) or error})", where=name) from None
    if len(data) > MAX_DOWNLOAD:
        raise UserError(f"is larger than {MAX_DOWNLOAD >> 20} MiB", where=name)
    return data


def content_type(url: str) -> str:
    """What kind of thing a URL gives, such as "image/jpeg"; empty where there is no response."""
    try:
        with _open(url) as response:
            return str(response.headers.get_content_type())
    except (OSError, http.client.HTTPException, ValueError):
        return ""
