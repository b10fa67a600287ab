"""Copies of the shards that a loader needs next, in a temporary folder that one process fills and removes.

The copies only save time. What is not there is read from the store, so a batch never depends on them.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo_cli.dataset.shards.store import ShardState, read_block
from yolo_cli.errors import UserError

AHEAD = 3  # shards fetched before they are needed

_STALLED = 60  # seconds without growth of a copy, after which the store is read instead
_PAUSE = 0.005  # seconds between looks at a growing copy


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard, and the last position in the order of an epoch at which it is needed."""

    url: str
    state: ShardState
    last: int


class ShardSpool:
    """A process that keeps copies of the shards of an epoch's plan, as many as `capacity`, in `folder`.

    On a machine with several training processes, that of local rank 0 fills the folder and all read it. The process
    removes the folder when it is closed, and when this process ends in any way.
    """

    def __init__(self, capacity: int, states: Mapping[str, ShardState], run: str) -> None:
        _require_room(capacity, states)
        self._process: subprocess.Popen[str] | None = None
        self.folder, self.is_owner = _choose_folder(run)
        if not self.is_owner:
            return
        command = [sys.executable, "-m", "yolo_cli.dataset.shards.spool_process", self.folder, str(capacity)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self._close = weakref.finalize(self, _stop, self._process, self.folder)

    def plan(self, shards: Sequence[PlannedShard]) -> None:
        """Fetch these shards in their order, the one that is needed first first."""
        rows = [[shard.url, shard.state.size, shard.state.version, shard.last] for shard in shards]
        self._send({"plan": rows})

    def advance(self, position: int) -> None:
        """Shards whose last position is before this one are no longer needed."""
        self._send({"at": position})

    def close(self) -> None:
        """End the process and remove the folder."""
        if self._process is not None:
            self._close()

    def _send(self, message: Mapping[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:  # the process has ended: everything is read from the store
            self._process = None


def copy_name(url: str) -> str:
    """The name of a shard's copy in the folder."""
    return hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest() + ".tar"


def read_spooled(folder: str, url: str, start: int, length: int) -> bytes:
    """`read_block` from the copy of a shard, or from the store where there is none.

    A copy that is being written grows from its start; this waits until it has grown far enough.
    """
    try:
        with open(os.path.join(folder, copy_name(url)), "rb", buffering=0) as copy:
            while True:
                copy.seek(start)
                content = copy.read(length)
                if len(content) == length:
                    return content
                state = os.fstat(copy.fileno())
                if state.st_nlink == 0 or time.time() - state.st_mtime > _STALLED:
                    break
                time.sleep(_PAUSE)
    except FileNotFoundError:
        pass
    return read_block(url, start, length)


def _choose_folder(run: str) -> tuple[str, bool]:
    """The folder for copies, and whether this process is the one that fills it."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return tempfile.mkdtemp(prefix="yolo-shards-"), True
    # The processes of one machine have the same parent, so each of them derives the same name.
    parts = (run, str(os.getppid()), os.environ.get("TORCHELASTIC_RESTART_COUNT", ""))
    name = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"yolo-shards-{name}"
    owner = os.environ.get("LOCAL_RANK", "0") == "0"
    if owner:
        folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder), owner


def _require_room(capacity: int, states: Mapping[str, ShardState]) -> None:
    """Raises UserError where the largest shards, as many as are kept, do not fit on the disk."""
    needed = sum(sorted(state.size for state in states.values())[-capacity:])
    folder = tempfile.gettempdir()
    if needed > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"{capacity} shards are kept in {folder}: they take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
            "are free",
            fix="set TMPDIR to a folder with more room, or give a smaller --shuffle-window",
        )


def _stop(process: "subprocess.Popen[str]", folder: str) -> None:
    try:
        if process.stdin is not None:
            process.stdin.write("{}\n")  # closing the pipe is not enough where forked workers have it open, too
            process.stdin.close()
        process.wait(5)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
