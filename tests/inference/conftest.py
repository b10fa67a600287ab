"""A tiny model that detects something in every image, and images and videos made for the tests."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yolo_cli.commands.detect import run as detect
from yolo_cli.config import DetectConfig
from yolo_cli.inference.writers.summary import Summary
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.weights import checkpoint

TINY = """
nc: 3
depth_multiple: 1.0
width_multiple: 1.0
anchors:
  - [20, 24, 60, 50]
  - [90, 120, 200, 160]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc, anchors]]
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run in parallel, and their threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model of three classes that predicts many boxes with high confidence."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY)
    torch.manual_seed(3)
    model = DetectionModel(find_architecture(str(folder / "tiny.yaml")), ("cat", "dog", "bär"))
    with torch.no_grad():
        for convolution in model.head.m:
            convolution.weight.mul_(4)
            convolution.bias.view(model.head.per_scale, -1)[:, 4:] += 7
    checkpoint.save(folder / "tiny.pt", model, epoch=0)
    return folder / "tiny.pt"


class RecordingReporter:
    """A Reporter that keeps its messages."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def info(self, text: str) -> None:
        self.infos.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def bar(self, total: int, title: str) -> object:
        raise AssertionError("detection has no bar")


class Run:
    """A finished run: its summary, messages, lines of JSON and run folder."""

    def __init__(self, summary: Summary, messages: RecordingReporter, lines: list[str], folder: Path) -> None:
        self.summary, self.messages, self.lines, self.folder = summary, messages, lines, folder

    @property
    def files(self) -> set[str]:
        return {p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()}


Runner = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path, tiny: Path) -> Runner:
    """Detect with the tiny model at 64 pixels, at most two boxes per image."""

    def start(source: object, **options: object) -> Run:
        messages, lines = RecordingReporter(), []
        given = {"weights": str(tiny), "img": (64, 64), "max_det": 2, "device": "cpu", **options}
        config = DetectConfig(source=str(source), project=str(tmp_path / "runs"), **given)
        summary = detect(config, messages, lines.append)
        return Run(summary, messages, lines, tmp_path / "runs" / config.name)

    return start


def make_image(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth color image, BGR."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def save_image(path: Path, height: int = 48, width: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, make_image(height, width, seed))
    assert done
    path.write_bytes(data.tobytes())
    return path


def save_video(
    path: Path, frames: int, *, fps: float = 12.5, size: tuple[int, int] = (48, 64), code: str = "mp4v"
) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), fps, (size[1], size[0]))
    assert writer.isOpened()
    base = make_image(*size)
    for i in range(frames):
        writer.write(np.roll(base, 2 * i, axis=1))
    writer.release()
    return path


def probe(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Number of frames that can be decoded, frame rate, (height, width)."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = 0
    while capture.grab():
        frames += 1
    size = (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
    return frames, capture.get(cv2.CAP_PROP_FPS), size


@contextmanager
def served(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server on 127.0.0.1 that answers every GET with `answer`; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def mjpeg(frames: int, pause: float) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """A motion-JPEG stream of `frames` frames, `pause` seconds apart."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for i in range(frames):
            data = cv2.imencode(".jpg", make_image(seed=i % 7))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(pause)

    return answer
