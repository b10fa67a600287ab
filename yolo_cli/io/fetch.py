"""Downloads a file over HTTP, with progress, and no more than the disk has room for."""

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter

TIMEOUT = 30  # seconds without an answer
RESERVE = 2**30  # bytes that a download of unknown size leaves free on the disk
_BLOCK = 2**20


def fetch_file(url: str, to: Path, *, notice: str, offline_fix: str, reporter: Reporter) -> str:
    """Download `url` to the file `to` and return its SHA-256 in hexadecimal.

    `notice` is reported with the size once the server has answered, progress in MiB. Raises UserError where the file
    cannot be fetched (with `offline_fix` as the alternative), where it ends early, and where the disk has no
    room for it; OSError where `to` cannot be written.
    """
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "yolo_cli"})
    response = _network(lambda: urllib.request.urlopen(request, timeout=TIMEOUT), url, offline_fix)
    with response, open(to, "wb") as out:
        size = int(response.headers.get("Content-Length") or 0)
        _check_room(to, size, f"{size >> 20} MiB are to be downloaded and there is not that much room")
        reporter.info(f"{notice} ({f'{size / 1e6:.1f} MB' if size else 'size unknown'})")
        with reporter.bar(-(-size // _BLOCK), f"download {to.name} (MiB)") as bar:
            while block := _network(lambda: response.read(_BLOCK), url, offline_fix):
                if not size:  # the response may never end
                    _check_room(to, RESERVE, f"{url} does not give its size, and the disk is nearly full")
                digest.update(block)
                out.write(block)
                bar.advance()
        if size and out.tell() != size:
            raise UserError(f"the download of {url} ended early", fix="try again")
    return digest.hexdigest()


def _check_room(file: Path, size: int, what: str) -> None:
    if size > shutil.disk_usage(file.parent).free:
        raise UserError(what, where=file.parent, fix="set YOLO_CACHE_DIR to another folder")


def _network(call: Callable[[], Any], url: str, fix: str) -> Any:
    """The result of `call`. Its errors become UserErrors here, because those of the disk are OSErrors, too."""
    try:
        return call()
    except (OSError, http.client.HTTPException) as error:
        code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {url} ({code}{reason})", fix=fix) from None
