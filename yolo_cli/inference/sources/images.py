"""Still images: from a file or a URL to a frame."""

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
TIMEOUT = 30  # seconds without an answer
_EXPANSION = 20  # pixels' bytes to a file's, where its header is not looked into


def read_still(source: Source, claimed: int = 0) -> Frame | Skipped:
    """The frame of an image, or why there is none."""
    start = time.perf_counter()
    if isinstance(source.location, Path) and is_special(source.location):
        return Skipped(source, "is a device or a pipe, not a file", claimed)
    try:
        if isinstance(source.location, Path):
            pixels = read_image(source.location)
        else:
            pixels = decode_image(fetch(str(source.location), source.name), source.name)
    except UserError as error:
        return Skipped(source, error.what, claimed)
    except (MemoryError, ValueError) as error:
        return Skipped(source, f"cannot be read as an image ({error})", claimed)
    return Frame(source, pixels, milliseconds={"read": 1000 * (time.perf_counter() - start)}, claimed=claimed)


def expected_bytes(source: Source) -> int:
    """About how much memory the pixels of an image will take, for files from their headers."""
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
        return 0  # reading it will say why


def is_special(path: Path) -> bool:
    """Whether there is a device, a pipe or the like, whose reading might never end."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _opened(url: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "yolo_cli"})
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    return answer


def fetch(url: str, name: str) -> bytes:
    """What a URL gives. Raises UserError; `name` is what it calls the URL."""
    if not url.lower().startswith(("http://", "https://")):
        raise UserError("not a kind of URL that can be read", where=name, fix="give http or https")
    try:
        with _opened(url) as answer:
            if (kind := answer.headers.get_content_maintype()) in ("multipart", "video", "audio"):
                raise UserError(f"is no image but {kind}/{answer.headers.get_content_subtype()}", where=name)
            data: bytes = answer.read(MAX_DOWNLOAD + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise UserError(f"cannot be fetched ({code}{getattr(error, 'reason', None) or error})", where=name) from None
    if len(data) > MAX_DOWNLOAD:
        raise UserError(f"is larger than {MAX_DOWNLOAD >> 20} MiB", where=name)
    return data


def content_type(url: str) -> str:
    """What kind of thing a URL gives, such as "image/jpeg"; empty where it does not answer."""
    try:
        with _opened(url) as answer:
            return str(answer.headers.get_content_type())
    except (OSError, http.client.HTTPException, ValueError):
        return ""
