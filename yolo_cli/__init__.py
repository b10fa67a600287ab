"""Train and evaluate YOLO object detectors."""

import importlib
from typing import TYPE_CHECKING, Any

from yolo_cli.version import __version__

if TYPE_CHECKING:
    from yolo_cli.inference.api import Model, load

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `yolo --help` does not need it.
    if name in ("Model", "load"):
        return getattr(importlib.import_module("yolo_cli.inference.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
