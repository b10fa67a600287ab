"""Silence for the exporters of other libraries."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence(*, native: bool = False) -> Iterator[None]:
    """Discard standard output, warnings, and log records up to WARNING; with `native` also stderr of compiled code.

    Exporters print their passes and deprecations, on which our users cannot act. Errors are still raised.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    stderr = os.dup(2) if native else -1
    try:
        if native:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if native:
            os.dup2(stderr, 2)
            os.close(stderr)
        logging.disable(before)
