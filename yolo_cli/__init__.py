"""Train and judge YOLO object detectors."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolo_cli.detect.api import Model, load

__all__ = ["Model", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `yolo --help` and whoever wants a part of the package must not wait for it.
    if name in __all__:
        return getattr(importlib.import_module("yolo_cli.detect.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
