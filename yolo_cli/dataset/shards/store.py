"""Reads tar shards from object stores and web servers through fsspec, which finds credentials in its own ways."""

import gc
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from typing import Any, TypeVar

from yolo_cli.errors import UserError, first_line

T = TypeVar("T")

BLOCK = 2**23  # bytes per request of a whole shard
RETRIES = 4
FIRST_PAUSE = 0.5  # seconds before the first retry, then twice as long each time
TIMEOUT = 30  # seconds without an answer

_AT_ONCE = 32  # questions for states
# The package that fsspec needs for a scheme; each is an extra of this package, too.
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gcs"}
# What stores say about the version of a file, the most reliable first.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "Last-Modified", "LastModified", "updated", "mtime")
_RETRIED_STATUS = (408, 425, 429)  # and all from 500


@dataclass(frozen=True, slots=True)
class ShardState:
    """The size in bytes of a shard, and its version as the store gives it: an ETag, or a time of modification."""

    size: int
    version: str


def shard_state(url: str) -> ShardState:
    """Ask the store for the state of a shard. Raises UserError where it cannot be reached, or does not exist."""
    info = _retried(lambda: _open(url)[0].info(_open(url)[1], **_fresh(url)), url)
    size = info.get("size")
    if not isinstance(size, int):
        raise UserError("the server does not give its size", where=url, fix="use a server that does, or a copy on disk")
    return ShardState(size, next((str(info[key]) for key in _VERSIONS if info.get(key)), ""))


def shard_states(urls: Sequence[str]) -> list[ShardState]:
    """The states of many shards, asked for at the same time."""
    with ThreadPoolExecutor(min(_AT_ONCE, len(urls)) or 1) as pool:
        return list(pool.map(shard_state, urls))


def read_block(url: str, start: int, length: int) -> bytes:
    """`length` bytes of a shard from byte `start`; fewer where it ends. Raises UserError where that fails."""
    return _retried(lambda: _checked(_cat(url, start, length), url, length), url)


def fetch(url: str, state: ShardState, out: FileIO, *, go_on: Callable[[], bool] = lambda: True) -> None:
    """Write a shard to an open file, block by block, as long as `go_on` returns true.

    Raises UserError where that fails or the shard is not in the given state, OSError where the file cannot be written.
    """
    require_state(url, state)
    at = 0
    while at < state.size and go_on():
        block = read_block(url, at, min(BLOCK, state.size - at))
        if not block:
            raise changed(url)
        out.write(block)
        out.flush()
        at += len(block)


def release_connections() -> None:
    """Close all connections of this process, before it is forked.

    fsspec would close those of the parent process in each forked one, and wait a second for each in vain.
    """
    import fsspec  # noqa: PLC0415 - only for datasets that are in an object store

    for scheme, package in _PACKAGES.items():
        if package in sys.modules:
            fsspec.get_filesystem_class(scheme).clear_instance_cache()
    gc.collect()  # the file systems are part of reference cycles


def require_state(url: str, state: ShardState) -> None:
    """Raises UserError where a shard has changed since it was indexed."""
    if shard_state(url) != state:
        raise changed(url)


def changed(url: str) -> UserError:
    """The error for a shard that is not as it was indexed."""
    fix = "start again, and do not change it during a run"
    return UserError("has changed since it was indexed", where=url, fix=fix)


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. fsspec keeps one per process and thread."""
    import fsspec  # noqa: PLC0415 - only for datasets that are in an object store

    scheme = url.partition("://")[0].lower()
    try:
        package = importlib.import_module(_PACKAGES[scheme])
    except ImportError:
        extra = _EXTRAS[scheme]
        what = f"{_PACKAGES[scheme]} is not installed, which reads {scheme}://"
        raise UserError(what, where=url, fix=f"pip install 'yolo-cli[{extra}]'") from None
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in ("http", "https"):
        waits = package.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
        options["client_kwargs"] = {"timeout": waits, "trust_env": True}
    return fsspec.core.url_to_fs(url, **options)


def _fresh(url: str) -> dict[str, Any]:
    """The option of `info` for an answer that is not from a cache."""
    return {"refresh": True} if url.startswith("s3://") else {}


def _cat(url: str, start: int, length: int) -> bytes:
    system, path = _open(url)
    try:
        return system.cat_file(path, start=start, end=start + length)
    except Exception as error:
        if getattr(error, "status", None) == 416:  # HTTP's answer for a range behind the end
            return b""
        raise


def _checked(content: bytes, url: str, length: int) -> bytes:
    if len(content) > length:
        what = "the server sends whole files only, not parts of them (HTTP ranges)"
        raise UserError(what, where=url, fix="use a server that supports ranges, or a copy on disk")
    return content


def _retried(call: Callable[[], T], url: str) -> T:
    """The result of `call`, which is repeated after a failure that may be temporary. Raises UserError."""
    for attempt in range(RETRIES + 1):
        try:
            return call()
        except UserError:
            raise
        except Exception as failure:  # the libraries of the stores raise errors of many kinds
            error = _cause(failure)
            if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 404:
                raise UserError("no such shard", where=url, fix="correct the URL in data.yaml") from None
            if attempt == RETRIES or not _is_temporary(error):
                times = f" after {attempt + 1} attempts" if attempt else ""
                fix = "check the URL, the network and the credentials"
                raise UserError(f"cannot be read{times} ({_reason(error)})", where=url, fix=fix) from None
            time.sleep(FIRST_PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _cause(error: Exception) -> Exception:
    """What went wrong. fsspec reports every failure of a web server's first answer as a missing file."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) else error


def _is_temporary(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in _RETRIED_STATUS
    return not isinstance(error, PermissionError) and "Credentials" not in type(error).__name__


def _reason(error: Exception) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"HTTP {status}"
    return "no answer" if isinstance(error, TimeoutError) else first_line(error)
