"""What the starts of one job know of each other: torch's elastic launcher starts its processes anew when one fails."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically

_WORD = 3.0  # seconds
MARK = "job"  # in a run's weights folder, while the run is not at its end: the job that trains it


class PeerError(Exception):
    """Another process has failed, which says why; `status` is the exit status of this one."""

    def __init__(self, what: str, status: int = 1) -> None:
        super().__init__(what)
        self.status = status


def wait_for_failure_report() -> None:
    """Wait before this process ends: the launcher ends all of them with the first, also the one that says why."""
    time.sleep(_WORD)


@dataclass(frozen=True, slots=True)
class ElasticJob:
    """A job of the elastic launcher; without a key, a plain process."""

    key: str = ""
    restarts: int = 0
    scratch: Path | None = None  # the launcher's folder on this machine: it outlives the processes, not the job

    @classmethod
    def of_environment(cls) -> "Job":
        """The job that the launcher's variables describe."""
        error_file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
        scratch = Path(error_file).parents[2] if error_file else None  # …/attempt_0/0/error.json
        key = os.environ.get("TORCHELASTIC_RUN_ID", "")
        if key in ("", "none"):  # torchrun's name for a job without one
            key = scratch.name if scratch else ""
        return cls(key, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), scratch)

    def has_failed(self) -> bool:
        """Whether the job has failed for a reason that another start does not mend."""
        return self.scratch is not None and (self.scratch / "failed").exists()

    @contextmanager
    def record_failure(self) -> Iterator[None]:
        """Note a failure that another start does not mend; PeerError where another process of this machine was first.

        It is noted before the connection to the others is closed, so that they know why they have lost this one.
        """
        try:
            yield
        except (UserError, OSError):
            if self.scratch:
                try:
                    (self.scratch / "failed").touch(exist_ok=False)
                except FileExistsError:
                    raise PeerError("another process has failed first", status=2) from None
                except OSError:
                    pass  # told twice, then
            raise

    def folder(self, project: str) -> Path | None:
        """The run that an earlier start of this job began and did not end."""
        if not self.key:
            return None
        for mark in sorted(Path(os.path.expanduser(project)).glob(f"*/weights/{MARK}")):
            if mark.read_text(encoding="utf-8", errors="replace") == self.key:
                return mark.parent.parent
        return None

    def begin(self, folder: Path) -> None:
        """Remember that this job trains in `folder`."""
        if self.key:
            write_atomically(folder / "weights" / MARK, self.key.encode(), what="the job's name")

    def end(self, folder: Path) -> None:
        """The run is at its end: the next start under this key is another run."""
        (folder / "weights" / MARK).unlink(missing_ok=True)
