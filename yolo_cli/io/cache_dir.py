"""The user's cache folder, for files that can be created again."""

import os
from pathlib import Path

import platformdirs


def user_cache_folder() -> Path:
    """The folder for caches: `YOLO_CACHE_DIR`, else `yolo_cli` in the platform's cache folder. Not created here."""
    folder = os.environ.get("YOLO_CACHE_DIR") or platformdirs.user_cache_dir("yolo_cli", appauthor=False)
    return Path(os.path.expanduser(folder)).absolute()
