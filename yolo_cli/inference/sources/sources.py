"""What `--source` names: files, URLs, streams."""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from urllib.parse import SplitResult, unquote, urlsplit

from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Kind, Source
from yolo_cli.inference.sources.images import content_type
from yolo_cli.io.file_tree import files_below
from yolo_cli.io.text_file import read_lines

_IMAGE_SUFFIXES = "avif bmp dib exr hdr jfif jp2 jpe jpeg jpg pbm pgm pic png pnm ppm pxm ras sr tif tiff webp"
_VIDEO_SUFFIXES = "asf avi flv gif m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
IMAGES = frozenset(f".{name}" for name in _IMAGE_SUFFIXES.split())
VIDEOS = frozenset(f".{name}" for name in _VIDEO_SUFFIXES.split())
EXAMPLES = (
    "give an image, a video, a folder, a glob in quotes, a .txt list, a .streams file, a camera's number, a URL, "
    "screen, or - for paths on standard input"
)
_STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt", "mms", "mmsh")


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources to read: files one after the other, or live ones all at once."""

    items: Iterable[Source]
    live: bool = False
    patient: bool = True  # False for standard input: no file waits for the next one, which may be long in coming
    count: int | None = None  # None where it is not known in advance


def find_sources(text: str) -> Sources:
    """The sources that `--source` names. Raises UserError where there are none."""
    if not text:
        raise UserError("no source given", where="--source", fix=EXAMPLES)
    if text == "-":
        return Sources(_from_stdin(), patient=False)
    if live := _live(text):
        source = _with_kind_from_server(live)
        return Sources((source,), live=source.kind in ("stream", "screen"), count=1)
    path = Path(os.path.expanduser(text))
    if "://" in text:
        if not _is_http(text):
            fix = "give http, https or rtsp"
            raise UserError("URLs of this kind cannot be read", where=without_password(text), fix=fix)
        return Sources((_remote(text),), count=1)
    if path.suffix.lower() == ".streams" and os.path.isfile(path):
        return _streams_file(path)
    found = list(_files(text, path))
    if not found:
        raise UserError("no images or videos found", where=f"--source {text}", fix=EXAMPLES)
    return Sources(found, count=len(found))


def _files(text: str, path: Path) -> Iterator[Source]:
    if os.path.isdir(path):
        yield from _files_below(path)
    elif path.suffix.lower() == ".txt" and os.path.isfile(path):
        yield from _listed(path)
    elif os.path.exists(path):
        yield _file(path, PurePath(path.name))
    elif glob.has_magic(text):
        fixed = Path(*_fixed_parts(path))
        for name in sorted(glob.glob(str(path), recursive=True)):
            file = Path(name)
            if os.path.isfile(file) and file.suffix.lower() in IMAGES | VIDEOS:
                yield _file(file, file.relative_to(fixed))
    else:
        raise UserError("no such file or folder", where=f"--source {text}", fix=EXAMPLES)


def _file(path: Path, relative: PurePath) -> Source:
    kind: Kind = "video" if path.suffix.lower() in VIDEOS else "image"
    return Source(kind, str(path), relative, path)


def _fixed_parts(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _files_below(folder: Path) -> Iterator[Source]:
    """Images and videos in a folder and below, and last the folders that cannot be read: reading them fails."""
    found, unreadable = files_below(folder, IMAGES | VIDEOS)
    for file in map(Path, found + unreadable):
        yield _file(file, file.relative_to(folder))


def _lines(path: Path) -> list[str]:
    return [line for line in read_lines(path) if not line.startswith("#")]


def _listed(listing: Path) -> Iterator[Source]:
    """The entries of a txt list. A relative path is looked up in the working folder, then in the list's own."""
    lines = _lines(listing)
    paths = {line: _existing_path(listing, line) for line in lines if "://" not in line}
    parents = {os.path.abspath(path.parent) for path in paths.values()}
    try:
        top = os.path.commonpath(parents) if parents else ""
    except ValueError:  # on different drives
        top = ""
    for line in lines:
        if (path := paths.get(line)) is None:
            yield _remote(line)
        else:
            whole = Path(os.path.abspath(path))
            yield _file(path, whole.relative_to(top) if top else PurePath(path.name))


def _existing_path(listing: Path, line: str) -> Path:
    path = Path(os.path.expanduser(line))
    return path if path.is_absolute() or os.path.exists(path) else listing.parent / path


def _from_stdin() -> Iterator[Source]:
    """A source per line of standard input, as the lines come."""
    for line in sys.stdin:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        path = Path(os.path.expanduser(text))
        if "://" in text:
            yield _remote(text)
        elif os.path.isdir(path):
            yield from _files_below(path)
        else:
            yield _file(path, PurePath(path.name or "unnamed"))


def _streams_file(path: Path) -> Sources:
    items = []
    for line in _lines(path):
        source = _live(line)
        if source is None and "://" in line:
            raise UserError("not a stream", where=f"{path}: {without_password(line)}", fix="give it as --source")
        if source is None:
            file = _existing_path(path, line)
            source = Source("video", str(file), PurePath(file.name), file)
        items.append(source)
    if not items:
        raise UserError("lists no streams", where=path, fix="give a URL, camera number or video file per line")
    return Sources(items, live=True, count=len(items))


def _live(text: str) -> Source | None:
    """The camera, screen or stream that the text names, or None."""
    if text.isascii() and text.isdigit():
        return Source("stream", f"camera {text}", PurePath(f"camera{text}.mp4"), int(text))
    if match := re.fullmatch(r"/dev/video(\d+)", text):
        return _live(match[1])
    if match := re.fullmatch(r"screen(?::(\d+))?", text):
        number = int(match[1] or 1)
        return Source("screen", f"screen {number}", PurePath(f"screen{number}.mp4"), number)
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if not rest or (scheme in ("http", "https") and _suffix(text) in IMAGES | VIDEOS):
        return None
    if scheme in ("http", "https", *_STREAMS):
        return Source("stream", without_password(text), PurePath(f"{_file_name(text)}.mp4"), text)
    return None


def _with_kind_from_server(source: Source) -> Source:
    """A URL without a known suffix may be a stream, an image or a video: ask the server for the media type."""
    url = str(source.location)
    if not _is_http(url):
        return source
    kind, _, form = content_type(url).partition("/")
    if kind == "image":
        return replace(source, kind="image", relative=source.relative.with_suffix(f".{form.replace('jpeg', 'jpg')}"))
    return replace(source, kind="video") if kind == "video" else source


def _remote(url: str) -> Source:
    """A video at a URL by its suffix, else an image."""
    name = _safe_name(unquote(PurePath(_parts(url).path).name))
    kind: Kind = "video" if _is_http(url) and _suffix(url) in VIDEOS else "image"
    return Source(kind, without_password(url), PurePath(name), url)


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _parts(url: str) -> SplitResult:
    """The parts of a URL; of a malformed one only the scheme."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult(url.partition(":")[0], "malformed", "", "", "")


def _suffix(url: str) -> str:
    return PurePath(_parts(url).path).suffix.lower()


def _file_name(url: str) -> str:
    parts = _parts(url)
    host = parts.netloc.rpartition("@")[2]
    return _safe_name(f"{host}{parts.path}").strip("_") or "stream"


def _safe_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")[-100:] or "unnamed"


def without_password(url: str) -> str:
    """A URL for messages: without user name and password, and without the query, which may hold a key."""
    parts = _parts(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
