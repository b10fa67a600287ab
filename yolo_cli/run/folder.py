"""Run folders: runs/exp, runs/exp2, …, claimed so that simultaneous runs never share one."""

import errno
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import find_weights

MAX_RUNS = 100_000
LOCK = ".lock"


def create_run_dir(project: str, name: str, *, exist_ok: bool) -> Path:
    """Make and return a folder that is this run's alone: project/name, or with the first free number behind it.

    With `exist_ok` project/name is used as it is. Raises UserError where it cannot be made.
    """
    if not name or Path(name).name != name or name in (".", ".."):
        raise UserError("not a folder name", where=f"--name {name!r}", fix="give one word; --project is the folder")
    parent = Path(os.path.expanduser(project))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, MAX_RUNS):
            folder = parent / (name if number == 1 else f"{name}{number}")
            try:
                folder.mkdir()  # the claim: making a folder succeeds for one process only
            except FileExistsError:
                if not (exist_ok and folder.is_dir()):
                    continue
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UserError("run folder is not writable", where=folder, fix="give another --project or --name")
            return folder
    except OSError as error:
        raise UserError(
            f"run folder cannot be made ({error.strerror})", where=parent, fix="give another --project"
        ) from None
    raise UserError("too many runs", where=parent, fix="give another --name")


class RunLock:
    """A run's folder as one process's own, from `take` until the end of `holding`, or of the process.

    The lock is the kind that ends with its process however that ends, is not inherited by processes that it forks, and
    that network file systems know. Where there are no locks, nothing is held.
    """

    def __init__(self) -> None:
        self.file: TextIO | None = None

    def acquire(self, folder: Path, *, patience: float = 0.0) -> None:
        """Hold a folder, waiting `patience` seconds for its holder to end. Raises UserError where it goes on."""
        if os.name != "posix":
            return
        import fcntl  # noqa: PLC0415 - Windows has none

        try:
            self.file = (folder / LOCK).open("a+", encoding="utf-8")
        except OSError:  # what else is written there will say why
            return
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):  # no locks there
                    return
                if time.monotonic() >= end:
                    self.file.seek(0)
                    holder = self.file.readline().strip() or "another process"
                    fix = "wait for its end, or stop it"
                    raise UserError(f"{holder} is training here", where=folder, fix=fix) from None
            time.sleep(0.2)
        try:
            self.file.truncate(0)
            self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self.file.flush()
        except OSError:  # a full disk: held all the same
            pass


@contextmanager
def holding() -> Iterator[RunLock]:
    """What a folder is held by, and let go of at the end."""
    hold = RunLock()
    try:
        yield hold
    finally:
        if hold.file:
            with suppress(OSError):  # of a full disk, again
                hold.file.close()


def newest_weights(project: str) -> Path:
    """best.pt of the newest run of a project. Raises UserError where there is none."""
    found = [path for path in Path(os.path.expanduser(project)).glob("*/weights/best.pt") if path.is_file()]
    if not found:
        raise UserError(
            "no run with weights/best.pt",
            where=project,
            fix="give --weights FILE, or train first: yolo train --data shapes --cfg n --img 160",
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def weights_or_newest(weights: str, project: str, reporter: Reporter) -> Path:
    """The model file that `--weights` names, or best.pt of the newest run. Raises UserError where there is none."""
    if weights:
        return find_weights(weights, exported=True)
    newest = newest_weights(project)
    reporter.info(f"--weights not given: using {newest} of the newest run")
    return newest


def write_options(path: Path, config: Any) -> None:
    """Options as YAML (opt.yaml, hyp.yaml)."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items()}
    write_mapping(path, values)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """A JSON file; numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names may be any bytes.
    write_atomically(path, text.encode("utf-8", "backslashreplace"), what=path.name)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
