"""The process of a `ShardSpool`: `python -m yolo_cli.dataset.shards.spool_process FOLDER CAPACITY`.

Each line of standard input is a JSON object: `plan` replaces the shards to fetch, `at` gives the position that the
training has reached, an empty object or the end of the input ends the process.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from yolo_cli.dataset.shards.spool import AHEAD, PlannedShard, copy_name
from yolo_cli.dataset.shards.store import ShardState, fetch
from yolo_cli.errors import UserError


class Spool:
    """The copies in a folder, of which there are at most `capacity`: which exist, and which is fetched next."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder, self._capacity = folder, capacity
        self._plan: list[PlannedShard] = []
        self._position = 0
        self._held: set[str] = set()  # URLs of the copies, complete or being written
        self._failed: set[str] = set()
        self._changed = threading.Condition()

    def plan(self, shards: list[PlannedShard]) -> None:
        """Replace the plan, which begins at position 0."""
        with self._changed:
            self._plan, self._position, self._failed = shards, 0, set()
            self._changed.notify_all()

    def advance(self, position: int) -> None:
        """Set the position that the training has reached."""
        with self._changed:
            self._position = position
            self._changed.notify_all()

    def fetch_forever(self) -> None:
        """Fetch the next shard of the plan whenever there is room."""
        while True:
            with self._changed:
                while (shard := self._next()) is None:
                    self._changed.wait()
                self._held.add(shard.url)
                copy = open(self._folder / copy_name(shard.url), "xb", buffering=0)  # noqa: SIM115 - closed below
            try:
                with copy:
                    fetch(shard.url, shard.state, copy, go_on=partial(self._holds, shard.url))
            except (UserError, OSError):  # who needs the shard reads it from the store, and reports the error
                with self._changed:
                    self._failed.add(shard.url)
                    self._drop(shard.url)

    def _holds(self, url: str) -> bool:
        return url in self._held

    def _next(self) -> PlannedShard | None:
        """The next shard to fetch; None where all are there that have room. Copies without use make room."""
        wanted = self._wanted()
        shard = next((shard for url, shard in wanted.items() if url not in self._held | self._failed), None)
        if shard is not None and len(self._held) >= self._capacity:
            self._drop(next(iter(self._held - wanted.keys())))
        return shard

    def _wanted(self) -> dict[str, PlannedShard]:
        """The shards that are needed first, as many as have room."""
        wanted: dict[str, PlannedShard] = {}
        for shard in self._plan:
            if len(wanted) == self._capacity:
                break
            if shard.last >= self._position:
                wanted.setdefault(shard.url, shard)
        return wanted

    def _drop(self, url: str) -> None:
        self._held.discard(url)
        with contextlib.suppress(OSError):
            os.unlink(self._folder / copy_name(url))


def main(folder: Path, capacity: int) -> None:
    """Serve the lines of standard input until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach every process of a job; the training ends this one
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder, os.getppid()), daemon=True).start()
    spool = Spool(folder, capacity)
    for _ in range(AHEAD):
        threading.Thread(target=spool.fetch_forever, daemon=True).start()
    for line in sys.stdin:
        message = json.loads(line)
        if "plan" in message:
            rows = message["plan"]
            spool.plan([PlannedShard(url, ShardState(size, version), last) for url, size, version, last in rows])
        elif "at" in message:
            spool.advance(message["at"])
        else:
            break
    _end(folder)


def _end_with_parent(folder: Path, parent: int) -> None:
    """End when the parent has, even by SIGKILL: forked workers may keep the input open for seconds."""
    while os.getppid() == parent:
        time.sleep(0.5)
    _end(folder)


def _end(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # threads may be waiting for a server


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
