"""A web server of this machine, which stands for the ones that files are downloaded from."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def folder_handler(folder: Path) -> Callable[..., BaseHTTPRequestHandler]:
    """Serves the files of a folder."""
    return partial(QuietHandler, directory=str(folder))


@contextmanager
def web_server(handler: Callable[..., BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a server until the end of the block, and gives its URL (without a slash at the end)."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    options: dict[str, Any] = {"poll_interval": 0.05}
    thread = threading.Thread(target=server.serve_forever, kwargs=options)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
