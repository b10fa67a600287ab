"""Shards in an S3-compatible store; needs s3fs and moto, which `make test` does not install."""

import socket
import subprocess
import sys
import time

import pytest

from tests.dataset.shards.conftest import Shards, index_of
from tests.dataset.test_shards import same
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.loader import train_loader
from yolo_cli.errors import UserError

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < end
            time.sleep(0.2)
        yield
        process.terminate()


@pytest.mark.slow
def test_batches_from_s3_equal_those_of_the_files(store: None, shards: Shards) -> None:
    import s3fs

    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    for file in shards.files:
        system.put_file(str(file), f"bucket/train/{file.name}")
    remote = index_of([f"s3://bucket/train/{n}.tar" for n in range(4)])
    assert remote.fingerprint == index_of(shards.files).fingerprint
    options = {"img": (64, 64), "batch": 2, "hyp": Hyperparameters(), "seed": 1, "shuffle_window": 2}
    local = list(train_loader(index_of(shards.files), workers=0, **options))
    assert same(local, list(train_loader(remote, workers=2, **options)))
    with pytest.raises(UserError, match=r"s3://bucket/train/9.tar: no such shard"):
        index_of(["s3://bucket/train/9.tar"])
