"""Shards at URLs behave like shards on a disk."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.dataset.shards.conftest import Shards, index_of
from tests.dataset.test_shards import same
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.sampler import shard_numbers
from yolo_cli.dataset.shards import store
from yolo_cli.dataset.shards.store import fetch, read_block, shard_state
from yolo_cli.errors import UserError


def test_the_index_equals_that_of_the_files(shards: Shards) -> None:
    local, remote = index_of(shards.files), shards.index()
    assert remote.fingerprint == local.fingerprint
    assert remote.spans[:, 1:].tolist() == local.spans[:, 1:].tolist()
    assert not remote.problems
    assert remote.name(7) == f"{shards.urls[3]}/007.jpg"
    assert [remote.content(i) for i in range(8)] == [local.content(i) for i in range(8)]
    assert list(remote.remote) == shards.urls


def test_each_shard_is_read_once_and_then_cached(shards: Shards, tmp_path: Path) -> None:
    first = shards.index(cache_dir=tmp_path / "cache")
    assert set(shards.server.requests.values()) == {1}
    again = shards.index(cache_dir=tmp_path / "cache")
    assert set(shards.server.requests.values()) == {1}
    assert again.remote == first.remote
    os.utime(shards.files[0], ns=(0, 0))
    shards.index(cache_dir=tmp_path / "cache")
    assert shards.server.requests["0.tar"] == 2


def test_shards_on_a_disk_and_at_urls_in_one_split(shards: Shards) -> None:
    index = index_of([str(shards.files[0]), *shards.urls[1:]])
    assert len(index) == 8
    assert index.content(0) == index_of(shards.files).content(0)
    assert shard_numbers(index)[0] == [str(shards.files[0]), *shards.urls[1:]]
    assert shard_numbers(index)[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("failure", ["drops", "errors"])
def test_failed_requests_are_repeated(failure: str, shards: Shards) -> None:
    setattr(shards.server, failure, 3)
    assert shards.index().fingerprint == index_of(shards.files).fingerprint


@pytest.mark.parametrize("failure", ["drops", "errors"])
def test_a_server_that_always_fails(failure: str, shards: Shards) -> None:
    setattr(shards.server, failure, 1000)
    with pytest.raises(UserError, match=rf"^{shards.urls[0]}: cannot be read after 5 attempts .*; check the URL"):
        shards.index()


def test_a_missing_shard(shards: Shards) -> None:
    with pytest.raises(UserError, match=r"^http://127.*/9\.tar: no such shard; correct the URL in data.yaml"):
        index_of([*shards.urls, shards.urls[0].replace("0.tar", "9.tar")], cache_dir=None)


def test_a_host_that_does_not_answer(shards: Shards) -> None:
    url = re.sub(r":\d+/", ":9/", shards.urls[0])
    with pytest.raises(UserError, match=r"^http://127.*:9/0\.tar: cannot be read after 5 attempts .*; check the URL"):
        index_of([url])


def test_a_server_without_ranges(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK", 2048)
    shards.server.ranges = False
    with pytest.raises(UserError, match="sends whole files only"):
        shards.index()


def test_a_shard_that_changed_is_not_mixed_with_what_was_indexed(shards: Shards, tmp_path: Path) -> None:
    state = shard_state(shards.urls[0])
    os.utime(shards.files[0], ns=(0, 0))
    with open(tmp_path / "copy", "xb", buffering=0) as copy, pytest.raises(UserError, match="has changed since"):
        fetch(shards.urls[0], state, copy)


def test_a_shard_that_got_shorter(shards: Shards) -> None:
    index = shards.index()
    shards.files[0].write_bytes(shards.files[0].read_bytes()[:600])
    with pytest.raises(UserError, match=rf"{shards.urls[0]}/000.jpg: the shard ends before it"):
        index.content(0)


def test_a_damaged_shard_is_reported_as_on_a_disk(shards: Shards) -> None:
    shards.files[1].write_bytes(shards.files[1].read_bytes()[:1500])
    index = shards.index()
    assert [problem.file for problem in index.problems] == [shards.urls[1]]
    assert "cut off" in index.problems[0].what
    assert len(index) == 6


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("s3://b/a.tar", "s3fs", "s3"), ("gs://b/a.tar", "gcsfs", "gcs")]
)
def test_a_package_that_is_not_installed(url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{url}: {package} is not installed.*; pip install 'yolo-cli\[{extra}\]'"):
        read_block(url, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_batches_equal_those_of_the_files(workers: int, shards: Shards) -> None:
    batches = [
        list(val_loader(index, img=(64, 64), batch=4, workers=workers))
        for index in (index_of(shards.files), shards.index())
    ]
    assert same(*batches)
