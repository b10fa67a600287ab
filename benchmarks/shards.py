"""Images per second of the training loader from tar shards: on a disk, and from a web server with latency.

The server answers each request after 20 ms, from the same machine, which also takes processor time from the loader.
Sides: shards on the disk; the same shards at URLs, fetched ahead; and at URLs with one request per image
(`--shuffle-window 0`). All make the same kind of batches, with 4 workers. The label index is built before.
"""

import contextlib
import json
import multiprocessing
import os
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Measure,
    add_data_options,
    alternate,
    answer,
    ask,
    environment,
    options,
    report,
    workplace,
)

LATENCY = 0.02  # seconds per request
WORKERS, BATCH, WINDOW = 4, 16, 8
SINGLE = "single requests"
MEASURES = (
    Measure("epoch", "images/s", True, "0.9 × disk"),
    Measure("second epoch", "images/s", True, "0.9 × disk"),
    Measure("first batch", "s", False),
)


class Handler(BaseHTTPRequestHandler):
    """Answers requests for files, or for ranges of them, after the latency."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, folder: Path, *args: Any) -> None:
        self.folder = folder
        super().__init__(*args)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, *, head: bool) -> None:
        time.sleep(LATENCY)
        with open(self.folder / Path(self.path).name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, end = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", f'"{size}"')
            self.end_headers()
            if not head:
                self.connection.sendfile(file, start, end - start)


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """A server in a process of its own, until the end of the block; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, folder))
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    process.terminate()
    server.server_close()


def pack(data: str, folder: Path, shards: int, images: int) -> list[str]:
    """Pack the training images of a dataset, again and again, into shards of so many images; returns the names."""
    from yolo_cli.dataset.label_index import label_path
    from yolo_cli.dataset.spec import split_files
    from yolo_cli.dataset.splits import prepare_dataset
    from yolo_cli.progress import Silent

    files = split_files(prepare_dataset(data, Silent()), "train")
    folder.mkdir()
    names = [f"train-{number:03d}.tar" for number in range(shards)]
    for number, name in enumerate(names):
        with tarfile.open(folder / name, "w") as shard:
            for i in range(number * images, (number + 1) * images):
                image = Path(files[i % len(files)])
                shard.add(image, f"{i:06d}{image.suffix}")
                if os.path.exists(label := label_path(str(image))):
                    shard.add(label, f"{i:06d}.txt")
    return names


def work(task: dict[str, Any]) -> None:
    from yolo_cli.config import Hyperparameters
    from yolo_cli.dataset.label_index import build_index
    from yolo_cli.dataset.loader import train_loader
    from yolo_cli.io.cache_dir import user_cache_folder

    index = build_index(task["files"], 80, strict=False, cache_dir=user_cache_folder(), workers=0, progress=None)
    loader = train_loader(
        index,
        img=(task["img"], task["img"]),
        batch=BATCH,
        hyp=Hyperparameters(),
        seed=0,
        workers=WORKERS,
        shuffle_window=task["window"],
    )
    figures = {}
    for epoch, name in enumerate(("epoch", "second epoch")):
        loader.set_epoch(epoch)
        start, images = time.perf_counter(), 0
        for batch in loader:
            if not images and not epoch:
                figures["first batch"] = time.perf_counter() - start
            images += len(batch.images)
        figures[name] = images / (time.perf_counter() - start)
    answer(figures)


def main() -> None:
    parser = options(__doc__, runs=3)
    add_data_options(parser)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--images", type=int, default=64, help="per shard")
    parser.add_argument("--img", type=int, default=640)
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.task))
        return
    with workplace() as folder:
        names = pack(args.data, folder / "shards", args.shards, args.images)
        with web_server(folder / "shards") as url:
            urls = [f"{url}/{name}" for name in names]
            files = [str(folder / "shards" / name) for name in names]
            tasks = {
                OURS: {"files": urls, "window": WINDOW, "img": args.img},
                "disk": {"files": files, "window": WINDOW, "img": args.img},
                SINGLE: {"files": urls, "window": 0, "img": args.img},
            }
            env = environment(folder, threads=1)
            sides = {
                name: partial(ask, sys.executable, __file__, name, task, env, folder) for name, task in tasks.items()
            }
            rounds = alternate(sides, args.runs)
    settings = {"img": args.img, "batch": BATCH, "workers": WORKERS, "latency": LATENCY, "runs": args.runs}
    report("shards", MEASURES, rounds, json_file=args.json, settings=settings)


if __name__ == "__main__":
    main()
