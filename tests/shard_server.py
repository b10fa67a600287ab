"""A web server for tar shards: byte ranges, ETags, and what can go wrong with them."""

import re
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class ShardServer:
    """Serves the files of a folder, after `latency` seconds per request.

    The next `drops` requests of a file's content are cut off after half of the bytes, the next `errors` answered with
    503. Without `ranges` whole files are sent. `requests` counts the requests of each file's content.
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self.folder, self.latency = folder, latency
        self.drops = self.errors = 0
        self.ranges = True
        self.requests: Counter[str] = Counter()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """The class of request handlers, as `web_server` takes it."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                server.answer(self, head=True)

            def do_GET(self) -> None:
                server.answer(self, head=False)

        return Handler

    def answer(self, to: BaseHTTPRequestHandler, *, head: bool) -> None:
        time.sleep(self.latency)
        file = self.folder / to.path.lstrip("/").partition("?")[0]
        if not file.is_file():
            to.send_error(404)
            return
        if not head and self.errors:
            self.errors -= 1
            to.send_error(503)
            return
        content, state = file.read_bytes(), file.stat()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", to.headers.get("Range", "")) if self.ranges else None
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, len(content))) if wanted else (0, len(content))
        if start > 0 and start >= len(content):
            to.send_error(416)
            return
        to.send_response(206 if wanted else 200)
        to.send_header("Content-Length", str(end - start))
        to.send_header("ETag", f'"{state.st_size}-{state.st_mtime_ns}"')
        if wanted:
            to.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        to.end_headers()
        if head:
            return
        self.requests[file.name] += 1
        part = content[start:end]
        if self.drops:
            self.drops -= 1
            part, to.close_connection = part[: len(part) // 2], True
        to.wfile.write(part)
