"""Imports that take long."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import torch and what needs it without the garbage collector, which is told to leave all of that alone.

    Hardly any of it ever becomes garbage, but the collector would go through it several times while it is imported and
    once more when the process ends: together 0.6 s of the 2.0 s that detecting on one image took.
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
