"""A small dataset in four tar shards, on a disk and behind a web server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dataset.test_shards import beside, pack
from tests.shard_server import ShardServer
from tests.web_server import web_server
from yolo_cli.dataset.label_index import LabelIndex, build_index
from yolo_cli.dataset.shards import store

SIZES = [(60, 80), (80, 60), (64, 64), (40, 90), (90, 40), (120, 160), (50, 60), (70, 70)]


@dataclass
class Shards:
    """Four shards of two images each: their files, the server that sends them, and their URLs."""

    files: list[Path]
    server: ShardServer
    urls: list[str]

    def index(self, **changes) -> LabelIndex:
        """The label index of the shards at their URLs."""
        return index_of(self.urls, **changes)


def index_of(files: list, **changes) -> LabelIndex:
    return build_index(files, 3, **{"strict": False, "cache_dir": None, "workers": 0, "progress": None, **changes})


@pytest.fixture
def shards(make_images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shards]:
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.01)
    labels = [f"{i % 3} 0.5 0.5 0.4 0.{i + 1}\n" for i in range(7)] + [None]
    images = make_images(SIZES, labels)
    folder = tmp_path / "shards"
    files = [
        pack(folder / f"{n}.tar", [member for image in images[2 * n : 2 * n + 2] for member in beside(image)])
        for n in range(4)
    ]
    server = ShardServer(folder)
    with web_server(server.handler(), monkeypatch) as url:
        yield Shards(files, server, [f"{url}/{file.name}" for file in files])
