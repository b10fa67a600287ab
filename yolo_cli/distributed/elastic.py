"""The job that torch's elastic launcher runs: it starts all processes again when one of them fails."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically

_REPORT_SECONDS = 3.0
MARK = "job"  # file in the weights folder of an unfinished run: the key of the job that trains it


class PeerError(Exception):
    """Another process has failed and reports the reason; `status` is the exit status of this one."""

    def __init__(self, what: str, status: int = 1) -> None:
        super().__init__(what)
        self.status = status


def wait_for_failure_report() -> None:
    """Give the process that failed first time to print the reason: the launcher kills all when one of them ends."""
    time.sleep(_REPORT_SECONDS)


@dataclass(frozen=True, slots=True)
class ElasticJob:
    """A job of the elastic launcher. The key is "" for a process that no launcher started."""

    key: str = ""
    restarts: int = 0
    scratch: Path | None = None  # the launcher's folder on this machine, which lasts as long as the job

    @classmethod
    def from_environment(cls) -> "ElasticJob":
        """The job that the launcher's environment variables describe."""
        error_file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
        scratch = Path(error_file).parents[2] if error_file else None  # …/attempt_0/0/error.json
        key = os.environ.get("TORCHELASTIC_RUN_ID", "")
        if key in ("", "none"):  # torchrun's name for a job without one
            key = scratch.name if scratch else ""
        return cls(key, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), scratch)

    def has_failed(self) -> bool:
        """Whether a process of this machine has failed for a reason that a restart does not remove."""
        return self.scratch is not None and (self.scratch / "failed").exists()

    @contextmanager
    def record_failure(self) -> Iterator[None]:
        """Record an error that a restart does not remove: a UserError or an OSError.

        Raises PeerError instead of it if another process of this machine has recorded one first. Use it inside
        `process_group`: the record is then written before the connection closes, so the processes that lose it find the
        reason.
        """
        try:
            yield
        except (UserError, OSError):
            if self.scratch:
                try:
                    (self.scratch / "failed").touch(exist_ok=False)
                except FileExistsError:
                    raise PeerError("another process failed first", status=2) from None
                except OSError:
                    pass  # the error is then printed by several processes
            raise

    def unfinished_run(self, project: str) -> Path | None:
        """The folder of the run that an earlier start of this job began and did not finish."""
        if not self.key:
            return None
        for mark in sorted(Path(os.path.expanduser(project)).glob(f"*/weights/{MARK}")):
            if mark.read_text(encoding="utf-8", errors="replace") == self.key:
                return mark.parent.parent
        return None

    def mark_started(self, folder: Path) -> None:
        """Mark the run in `folder` as this job's. Its subfolder `weights` must exist."""
        if self.key:
            write_atomically(folder / "weights" / MARK, self.key.encode(), what="the job's name")

    def mark_finished(self, folder: Path) -> None:
        """Remove the mark: the next start with this key begins a new run."""
        (folder / "weights" / MARK).unlink(missing_ok=True)
