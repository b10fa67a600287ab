"""A lock on a run folder, so that two processes never write to one run."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from yolo_cli.errors import UserError

LOCK = ".lock"


class RunLock:
    """Exclusive use of a run folder by this process, from `acquire` to the end of the `with` block.

    The operating system releases the lock when the process ends, however it ends. Forked workers do not hold it. On a
    file system without locks, nothing is locked.
    """

    def __init__(self) -> None:
        self._lock: BaseFileLock | None = None

    def acquire(self, folder: Path, *, patience: float = 0.0) -> None:
        """Lock a folder. Raises UserError if another process still holds the lock after `patience` seconds."""
        path = folder / LOCK
        lock = FileLock(path, poll_interval=0.2, fallback_to_soft=False)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            fix = "wait until it ends, or stop it"
            raise UserError(f"{_holder(path)} is training here", where=folder, fix=fix) from None
        except (OSError, NotImplementedError):  # no locks here; or no write access, which the next write reports
            return
        self._lock = lock
        with suppress(OSError):  # of a full disk: the folder is locked nevertheless
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
