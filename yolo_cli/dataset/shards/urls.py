"""URLs of tar shards in data.yaml, and the names `train-{000..041}.tar` for many of them."""

import re
from urllib.parse import urlsplit

from yolo_cli.errors import UserError

SCHEMES = ("http", "https", "s3", "gs")
SHARD = ".tar"

_MAX_SHARDS = 1_000_000
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_URL_BYTES = re.compile(rb"^[A-Za-z][A-Za-z0-9+.-]+://")
_RANGE = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")


def is_url(path: str) -> bool:
    """Whether a path of a data.yaml or a list is a URL. `C:\\images` is none."""
    return _URL.match(path) is not None


def without_scheme(path: bytes) -> bytes:
    """A URL as an absolute path, `https://host/a.tar` as `/host/a.tar`; a path as it is."""
    return _URL_BYTES.sub(b"/", path, count=1)


def is_shard(file: str) -> bool:
    """Whether a path or URL is that of a tar shard. A URL may have a query, as signed URLs do."""
    return (urlsplit(file).path if is_url(file) else file).lower().endswith(SHARD)


def check_url(url: str, where: object) -> None:
    """Raises UserError for a URL that cannot name a shard or a list of shards."""
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UserError(f"{url}: {scheme}:// is not supported", where=where, fix=f"use {', '.join(SCHEMES)} or a path")
    if not urlsplit(url).netloc:
        raise UserError(f"{url}: no {'bucket' if scheme in ('s3', 'gs') else 'host'}", where=where)
    if not is_shard(url):
        what = f"{url}: only tar shards can be at a URL"
        raise UserError(what, where=where, fix="give URLs that end in .tar, or pack the dataset into shards")


def expand_ranges(pattern: str, where: object) -> list[str]:
    """`a-{000..002}.tar` as a-000.tar, a-001.tar and a-002.tar; the digits of the first number give the width.

    Raises UserError for more than a million names.
    """
    names, count = [pattern], 1
    for first, last in _RANGE.findall(pattern):
        count *= int(last) - int(first) + 1
        if int(last) < int(first) or count > _MAX_SHARDS:
            raise UserError(f"{pattern}: {{{first}..{last}}} gives no names, or more than a million", where=where)
        numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        names = [name.replace(f"{{{first}..{last}}}", number, 1) for name in names for number in numbers]
    return names
