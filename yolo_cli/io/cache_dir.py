"""The user's cache folder, for what can be made again, and files written there whole or not at all."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def user_cache_folder() -> Path:
    """The folder for caches: `YOLO_CACHE_DIR`, else `yolo_cli` in the platform's cache folder. Not created here."""
    if own := os.environ.get("YOLO_CACHE_DIR"):
        return Path(os.path.expanduser(own)).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(base)).absolute() / "yolo_cli"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "yolo_cli"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local"))) / "yolo_cli" / "Cache"
    return Path.home() / ".cache" / "yolo_cli"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write; it takes `path`'s place when the block ends well, else it is removed.

    Raises OSError where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
