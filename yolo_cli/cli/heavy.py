"""Faster import of torch and the modules that need it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Turn the garbage collector off during the imports in this block, and exclude the imported objects from it.

    Hardly any of them ever become garbage, but the collector would scan them several times during the import and once
    when the process ends: together 0.6 s of the 2.0 s of a detection on one image.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
