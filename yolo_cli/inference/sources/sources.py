"""From the text of `--source` to what is to be read."""

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

_STILL = "avif bmp dib exr hdr jfif jp2 jpe jpeg jpg pbm pgm pic png pnm ppm pxm ras sr tif tiff webp"
_MOVING = "asf avi flv gif m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
IMAGES = frozenset(f".{name}" for name in _STILL.split())
VIDEOS = frozenset(f".{name}" for name in _MOVING.split())
FORMS = (
    "give an image, a video, a folder, a glob in quotes, a .txt list, a .streams file, a camera's number, a URL, "
    "screen, or - for paths on standard input"
)
_STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt", "mms", "mmsh")


@dataclass(frozen=True, slots=True)
class Sources:
    """What is to be read: files one after the other, or live sources all at once.

    `patient` is False where a file may be long in coming (standard input), so that what is there is not kept waiting.
    """

    items: Iterable[Source]
    live: bool = False
    patient: bool = True
    count: int | None = None


def find_sources(text: str) -> Sources:
    """What `--source` names. Raises UserError where it names nothing that could be read."""
    if not text:
        raise UserError("nothing to detect on", where="--source", fix=FORMS)
    if text == "-":
        return Sources(_piped(), patient=False)
    if live := _live(text):
        source = _looked_at(live)
        return Sources((source,), live=source.kind in ("live", "screen"), count=1)
    path = Path(os.path.expanduser(text))
    if "://" in text:
        if not _is_http(text):
            fix = "give http, https or rtsp"
            raise UserError("not a kind of URL that can be read", where=without_password(text), fix=fix)
        return Sources((_remote(text),), count=1)
    if path.suffix.lower() == ".streams" and os.path.isfile(path):
        return _streams_file(path)
    found = list(_files(text, path))
    if not found:
        raise UserError("no image and no video there", where=f"--source {text}", fix=FORMS)
    return Sources(found, count=len(found))


def _files(text: str, path: Path) -> Iterator[Source]:
    if os.path.isdir(path):
        for file in _under(path):
            yield _file(file, file.relative_to(path))
    elif path.suffix.lower() == ".txt" and os.path.isfile(path):
        yield from _listed(path)
    elif os.path.exists(path):
        yield _file(path, PurePath(path.name))
    elif glob.has_magic(text):
        fixed = Path(*_before_magic(path))
        for name in sorted(glob.glob(str(path), recursive=True)):
            file = Path(name)
            if os.path.isfile(file) and file.suffix.lower() in IMAGES | VIDEOS:
                yield _file(file, file.relative_to(fixed))
    else:
        raise UserError("no such file or folder", where=f"--source {text}", fix=FORMS)


def _file(path: Path, relative: PurePath) -> Source:
    kind: Kind = "video" if path.suffix.lower() in VIDEOS else "image"
    return Source(kind, str(path), relative, path)


def _before_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _under(folder: Path) -> list[Path]:
    """Images and videos in a folder and below, in the order of their names; hidden ones stay out.

    A folder that cannot be looked into stands for itself, so that reading it says why.
    """
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for base, folders, files in os.walk(folder, onerror=lambda e: found.append(Path(e.filename)), followlinks=True):
        state = os.stat(base)
        if (state.st_dev, state.st_ino) in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(base, name)
            for name in sorted(files)
            if os.path.splitext(name)[1].lower() in IMAGES | VIDEOS and not name.startswith(".")
        )
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a list ({error})", where=path) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _listed(listing: Path) -> Iterator[Source]:
    """What a txt list names; a relative path counts from the working folder, else from the list's own."""
    lines = _lines(listing)
    paths = {line: _beside(listing, line) for line in lines if "://" not in line}
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


def _beside(listing: Path, line: str) -> Path:
    path = Path(os.path.expanduser(line))
    return path if path.is_absolute() or os.path.exists(path) else listing.parent / path


def _piped() -> Iterator[Source]:
    """A source for each line of the standard input, as they come."""
    for line in sys.stdin:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        path = Path(os.path.expanduser(text))
        if "://" in text:
            yield _remote(text)
        elif os.path.isdir(path):
            for file in _under(path):
                yield _file(file, file.relative_to(path))
        else:
            yield _file(path, PurePath(path.name or "unnamed"))


def _streams_file(path: Path) -> Sources:
    items = []
    for line in _lines(path):
        source = _live(line)
        if source is None and "://" in line:
            raise UserError("is not a stream", where=f"{path}: {without_password(line)}", fix="give it as --source")
        if source is None:
            file = _beside(path, line)
            source = Source("video", str(file), PurePath(file.name), file)
        items.append(source)
    if not items:
        raise UserError("names no stream", where=path, fix="give a URL, a camera's number or a video file a line")
    return Sources(items, live=True, count=len(items))


def _live(text: str) -> Source | None:
    """A camera, a screen or a stream, where the text names one."""
    if text.isascii() and text.isdigit():
        return Source("live", f"camera {text}", PurePath(f"camera{text}.mp4"), int(text))
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
        return Source("live", without_password(text), PurePath(f"{_file_name(text)}.mp4"), text)
    return None


def _looked_at(source: Source) -> Source:
    """What an HTTP address without a telling suffix really gives: a stream, or an image or video after all."""
    url = str(source.location)
    if not _is_http(url):
        return source
    kind, _, form = content_type(url).partition("/")
    if kind == "image":
        return replace(source, kind="image", relative=source.relative.with_suffix(f".{form.replace('jpeg', 'jpg')}"))
    return replace(source, kind="video") if kind == "video" else source


def _remote(url: str) -> Source:
    """A video at a URL, or an image; whether it is one shows when it is fetched."""
    name = _plain(unquote(PurePath(_parts(url).path).name))
    kind: Kind = "video" if _is_http(url) and _suffix(url) in VIDEOS else "image"
    return Source(kind, without_password(url), PurePath(name), url)


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _parts(url: str) -> SplitResult:
    """The parts of a URL; of a malformed one only its scheme."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult(url.partition(":")[0], "malformed", "", "", "")


def _suffix(url: str) -> str:
    return PurePath(_parts(url).path).suffix.lower()


def _file_name(url: str) -> str:
    parts = _parts(url)
    host = parts.netloc.rpartition("@")[2]
    return _plain(f"{host}{parts.path}").strip("_") or "stream"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")[-100:] or "unnamed"


def without_password(url: str) -> str:
    """A URL as reports may show it: without a user's name and password, and without a query, which may hold a key."""
    parts = _parts(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
