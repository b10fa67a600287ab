"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

from yolo_cli.errors import UserError


def write_whole(path: Path, data: bytes | memoryview, *, what: str) -> None:
    """Write to a temporary file beside `path`, flushed to the device, then renamed over it.

    Raises UserError, naming `what`, when the device is full or the folder cannot be written; an older file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = f"{'free some space; ' if full else ''}what was saved before is intact"
        raise UserError(f"{what} cannot be written ({error.strerror})", where=path, fix=fix) from None
    finally:
        temporary.unlink(missing_ok=True)
