"""A run folder is locked by one process at a time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from yolo_cli.errors import UserError
from yolo_cli.run.lock import RunLock

# Holds the lock, and forks a child that outlives it, as a DataLoader's workers do.
HOLDER = """
import os, sys, time
from pathlib import Path
from yolo_cli.run.lock import RunLock

with RunLock() as lock:
    lock.acquire(Path(sys.argv[1]))
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, 9)


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_locked_folder_is_refused_until_its_process_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with RunLock() as lock:
        with pytest.raises(UserError, match=rf"process {holder.pid} on .* is training here; wait until it ends"):
            lock.acquire(tmp_path, patience=0.3)
        holder.kill()
        holder.wait()
        lock.acquire(tmp_path)  # its forked child still runs


def test_the_lock_ends_with_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock() as lock:
            lock.acquire(tmp_path)
