"""Training batches from shards at URLs, and the process that fetches the shards."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dataset.shards.conftest import Shards, index_of
from tests.dataset.test_shards import same
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.loader import BatchLoader, train_loader
from yolo_cli.dataset.shards.spool import PlannedShard, ShardSpool, copy_name, read_spooled
from yolo_cli.errors import UserError


def training(index: LabelIndex, window: int = 2, **changes) -> BatchLoader:
    options = {"img": (64, 64), "batch": 2, "hyp": Hyperparameters(), "seed": 5, "workers": 0, **changes}
    return train_loader(index, shuffle_window=window, **options)


def epochs(loader: BatchLoader, first: int = 0, start: int = 0) -> list:
    batches = []
    for epoch in (first, first + 1):
        loader.set_epoch(epoch, start if epoch == first else 0)
        batches += list(loader)
    return batches


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def copies(folder: str) -> set[str]:
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


@pytest.mark.parametrize("window", [2, 8])
def test_batches_equal_those_of_local_shards_for_any_number_of_workers(window: int, shards: Shards) -> None:
    expected = epochs(training(index_of(shards.files), window))
    for workers in (0, 2):
        loader = training(shards.index(), window, workers=workers)
        assert same(expected, epochs(loader))


def test_an_epoch_resumes_in_the_middle(shards: Shards) -> None:
    whole = epochs(training(shards.index()))
    assert same(epochs(training(shards.index(), workers=2), start=2), whole[2:])


def test_the_default_window_shuffles_few_shards_together(shards: Shards) -> None:
    assert same(epochs(training(shards.index(), -1)), epochs(training(index_of(shards.files), 0)))


def test_files_of_their_own_have_no_shards(make_images) -> None:
    with pytest.raises(UserError, match="--shuffle-window 2: images in files of their own have no shards"):
        training(index_of(make_images([(40, 40)])), 2)


def planned(shards: Shards, order: list[int], offset: int = 0) -> list[PlannedShard]:
    states = shards.index().remote
    return [PlannedShard(shards.urls[n], states[shards.urls[n]], offset + i) for i, n in enumerate(order)]


def test_copies_follow_the_plan_within_the_capacity(shards: Shards) -> None:
    names = [copy_name(url) for url in shards.urls]
    spool = ShardSpool(2, {}, "run")
    spool.plan(planned(shards, [3, 1, 0, 2]))
    wait_for(lambda: copies(spool.folder) == {names[3], names[1]})
    spool.advance(1)  # shard 3 is not needed any more
    wait_for(lambda: copies(spool.folder) == {names[1], names[0]})
    wait_for(lambda: (Path(spool.folder) / names[0]).read_bytes() == shards.files[0].read_bytes())
    before = shards.server.requests["0.tar"]
    assert read_spooled(spool.folder, shards.urls[0], 512, 100) == shards.files[0].read_bytes()[512:612]
    assert shards.server.requests["0.tar"] == before
    assert read_spooled(spool.folder, shards.urls[3], 512, 100) == shards.files[3].read_bytes()[512:612]
    spool.plan(planned(shards, [2, 3, 1, 0]))
    wait_for(lambda: copies(spool.folder) == {names[2], names[3]})
    spool.close()
    assert not os.path.exists(spool.folder)


def test_reading_waits_for_a_copy_that_grows(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/a.tar"
    code = (
        f"import time; f = open({str(tmp_path / copy_name(url))!r}, 'wb', buffering=0)\n"
        "for part in (b'ab', b'cd', b'ef'): f.write(part); time.sleep(0.2)"
    )
    with subprocess.Popen([sys.executable, "-c", code]):
        wait_for((tmp_path / copy_name(url)).exists)
        assert read_spooled(str(tmp_path), url, 3, 3) == b"def"


def test_a_shard_that_disappears_ends_the_training_with_its_url(shards: Shards) -> None:
    index = shards.index()
    shards.files[2].unlink()
    for workers in (0, 1):
        loader, message = training(index, workers=workers), ""
        try:
            epochs(loader)
        except UserError as error:
            message = str(error)
        assert message.startswith(f"{shards.urls[2]}: no such shard")
        del loader


def test_a_changed_shard_is_never_copied(shards: Shards) -> None:
    plan = planned(shards, [0, 1])
    os.utime(shards.files[0], ns=(0, 0))
    spool = ShardSpool(2, {}, "run")
    spool.plan(plan)
    wait_for(lambda: copy_name(shards.urls[1]) in copies(spool.folder))
    wait_for(lambda: copy_name(shards.urls[0]) not in copies(spool.folder))


def test_no_room_for_the_copies(shards: Shards) -> None:
    index = shards.index()
    states = {url: type(state)(2**50, state.version) for url, state in index.remote.items()}
    before = set(Path(tempfile.gettempdir()).glob("yolo-shards-*"))
    with pytest.raises(UserError, match=r"2 shards are kept in .* GiB are free; set TMPDIR"):
        ShardSpool(2, states, "run")
    assert set(Path(tempfile.gettempdir()).glob("yolo-shards-*")) <= before


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_nothing_is_left_when_the_training_process_ends(number: signal.Signals, shards: Shards) -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background starts processes that ignore it
from yolo_cli.dataset.shards.spool import PlannedShard, ShardSpool
from yolo_cli.dataset.shards.store import shard_state
spool = ShardSpool(4, {}, "run")
spool.plan([PlannedShard(url, shard_state(url), 0) for url in sys.argv[1:]])
print(spool.folder, spool._process.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code, *shards.urls]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        folder, fetching = process.stdout.readline().split()
        wait_for(lambda: len(copies(folder)) == 4)
        process.send_signal(number)
        process.wait(20)
    wait_for(lambda: not os.path.exists(folder) and not alive(int(fetching)))
