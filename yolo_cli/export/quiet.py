"""Other people's exporters, kept from talking."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, native: bool = False) -> Iterator[None]:
    """Drop standard output, warnings and lesser log lines; with `native` what compiled parts write to stderr, too.

    Exporters tell of their passes and deprecations, none of which a user of ours could act on; errors are raised.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    saved = os.dup(2) if native else -1
    try:
        if native:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if native:
            os.dup2(saved, 2)
            os.close(saved)
        logging.disable(before)
