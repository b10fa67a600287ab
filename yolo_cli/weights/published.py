"""Weights that users name instead of a file: published under a free license, looked for on this machine first."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from yolo_cli.errors import UserError
from yolo_cli.io.cache_dir import user_cache_folder
from yolo_cli.io.fetch import fetch_file
from yolo_cli.progress import Reporter
from yolo_cli.weights.license import YOLOX

YOLOX_RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file that its authors offer for download."""

    url: str
    license: str
    architecture: str  # a shipped architecture, whose names and shapes the file must have
    sha256: str = ""  # where it is known

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]


PUBLISHED = {
    f"yolox-{size}": PublishedWeights(f"{YOLOX_RELEASE}/yolox_{size}.pth", YOLOX, f"yolox-{size}")
    for size in ("nano", "tiny", "s", "m", "l", "x")
}


def find_published(name: str, reporter: Reporter, check: Callable[[Path, PublishedWeights], None]) -> Path:
    """The file of published weights by their name in `PUBLISHED` (`yolox-nano`).

    It is looked for in the folder `YOLO_WEIGHTS`, then in the cache folder, and only then downloaded into the cache
    folder. `check` raises UserError for a download that is not what was expected; such a file is not kept. Raises
    UserError where it cannot be downloaded.
    """
    published = PUBLISHED[name]
    folders = [Path(os.path.expanduser(folder)) for folder in [os.environ.get("YOLO_WEIGHTS")] if folder]
    if folders and not folders[0].is_dir():
        raise UserError("is not a folder", where=f"YOLO_WEIGHTS={folders[0]}", fix="set it to a folder, or unset it")
    cache = user_cache_folder() / "weights"
    for folder in (*folders, cache):
        if (path := folder / published.file_name).is_file():
            try:
                check(path, published)
            except UserError as error:
                fix = "download it again; it was cut off, or is another file"
                raise UserError(f"is not {name}: {error.what}", where=path, fix=fix) from None
            return path
    target = cache / published.file_name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{published.file_name}.lock"):  # the processes of one training ask at the same time
            if not target.is_file():
                _download(name, published, target, reporter, check)
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror or error})",
            where=target,
            fix="free some space, or set YOLO_CACHE_DIR to another folder",
        ) from None
    return target


def _download(
    name: str,
    published: PublishedWeights,
    target: Path,
    reporter: Reporter,
    check: Callable[[Path, PublishedWeights], None],
) -> None:
    """Fetch beside `target`, check, then rename: the file is there whole and checked, or not at all."""
    url, file = published.url, published.file_name
    notice = f"{name} is not on this machine: downloading {url} to {target}; license {published.license}"
    fix = f"download it elsewhere and put {file} into {target.parent}, or into a folder that YOLO_WEIGHTS names"
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        part = Path(folder) / target.name
        digest = fetch_file(url, part, notice=notice, offline_fix=fix, reporter=reporter)
        if published.sha256 and digest != published.sha256:
            what = f"SHA-256 of {url} is {digest}, not {published.sha256}"
            raise UserError(what, where=f"--weights {name}", fix="do not use this file")
        try:
            check(part, published)
        except UserError as error:
            raise UserError(f"{url} is not {name}: {error.what}", fix="try again later") from None
        os.replace(part, target)
