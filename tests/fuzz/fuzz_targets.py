"""The fuzzed readers: one function per kind of file, which reads the bytes or refuses them."""

import contextlib
import functools
import os
import shutil
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from fuzz_pickles import packed

from yolo_cli.dataset.download import unpack
from yolo_cli.dataset.image_header import BadImage, image_size
from yolo_cli.dataset.images import decode_image
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.dataset.yolo_labels import parse_labels
from yolo_cli.errors import UserError
from yolo_cli.model.architecture import Architecture, from_mapping, read_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent
from yolo_cli.train.hyperparameters import read_hyperparameters
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.weights import is_prefix, pack_weights, read_weights
from yolo_cli.weights.load import load_weights

REFUSALS = (
    UserError,
    BadImage,
)  # callers of the image readers report BadImage; nothing else is allowed
SMALL_CFG = """\
[net]
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=7
activation=linear
[yolo]
anchors=10,14
classes=2
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A fuzzed reader: `run(data, folder)` writes the bytes to a file in `folder` and reads it."""

    name: str
    run: Callable[[bytes, Path], None]
    memory: int = 512  # MiB per input


def labels(data: bytes, folder: Path) -> None:
    """Any bytes give boxes and regions inside the image and a list of problems, without an exception."""
    classes, boxes, problems = array("i"), array("f"), []
    nc = (data[0] if data else 0) % 100 + 1
    count, _ = parse_labels(data[1:], nc, classes, boxes, problems)
    assert count == len(classes) == len(boxes) // 4
    assert all(-1 <= c < nc for c in classes)  # −1: a region to be ignored
    assert all(0 <= v <= 1 for v in boxes)
    assert all(number >= 0 and what for number, what in problems)


def data_yaml(data: bytes, folder: Path) -> None:
    """A data.yaml and the images that it lists. Nothing is downloaded or generated."""
    spec = load_spec(str(written(folder / "fuzz.yaml", data)))
    if spec.download or spec.generate:
        return
    _make_images(folder)
    spec = prepare(spec, Silent())
    for split, entries in spec.splits.items():
        paths = [path for entry in entries for path in entry.paths()]
        if not any(path.startswith(("/", "~")) or ".." in path for path in paths):  # elsewhere the result varies
            split_files(spec, split)


def architecture_yaml(data: bytes, folder: Path) -> None:
    """An architecture, its round trip through a mapping, and the shapes of its model."""
    architecture = read_architecture(written(folder / "fuzz.yaml", data))
    assert from_mapping(architecture.to_mapping(), name=architecture.name, where="again") == architecture
    shapes_of(architecture)


def hyp_yaml(data: bytes, folder: Path) -> None:
    """Hyperparameters."""
    read_hyperparameters(str(written(folder / "fuzz.yaml", data)), Silent())


def darknet_cfg(data: bytes, folder: Path) -> None:
    """A Darknet network and the shapes of its model."""
    shapes_of(read_network(written(folder / "fuzz.cfg", data)).architecture)


def darknet_weights(data: bytes, folder: Path) -> None:
    """Weights for a small network, of a backbone alone if the first byte is b. They are written back unchanged."""
    name = "fuzz.conv.1" if data[:1] == b"b" else "fuzz.weights"
    path = written(folder / name, data[1:])
    read = read_weights(path, small_network())
    if not is_prefix(path):
        assert pack_weights(small_network(), read.state, read.header) == data[1:]


def pickled(data: bytes, folder: Path) -> None:
    """A checkpoint. First byte: F whole file, Z pickle of a zip file, L main pickle of the legacy format."""
    path = written(folder / "fuzz.pt", packed(data))
    with programs_forbidden():
        load_weights(path).build_model()


def archives(data: bytes, folder: Path) -> None:
    """A downloaded archive. Nothing may be written outside its folder."""
    path, inside = written(folder / "archive", data), folder / "around" / "unpacked"
    shutil.rmtree(folder / "around", ignore_errors=True)
    inside.parent.mkdir()
    with contextlib.suppress(OSError):  # a name that is not possible on this file system; the caller reports it
        unpack(path, inside)
    assert {entry.name for entry in inside.parent.iterdir()} <= {"unpacked"}
    assert not any(entry.is_symlink() for entry in inside.rglob("*"))


def images(data: bytes, folder: Path) -> None:
    """An image's size from its header, and its pixels."""
    path = written(folder / "fuzz.img", data)
    with contextlib.suppress(*REFUSALS):
        height, width = image_size(str(path))
        assert min(height, width) > 0
    decoded = decode_image(data, path)
    assert decoded.ndim == 3


TARGETS = {
    target.name: target
    for target in (
        Target("labels", labels),
        Target("data-yaml", data_yaml),
        Target("architecture-yaml", architecture_yaml),
        Target("hyp-yaml", hyp_yaml),
        Target("darknet-cfg", darknet_cfg),
        Target("darknet-weights", darknet_weights),
        Target("pickle", pickled),
        Target("archives", archives),
        Target("images", images, memory=2048),  # 2²⁸ pixels are allowed, and decoding holds them twice
    )
}


def outcome(target: Target, data: bytes, folder: Path) -> str:
    """'read', or the message of the refusal. Other exceptions are raised."""
    try:
        target.run(data, folder)
    except REFUSALS as error:
        line = str(error)
        assert line.strip()
        assert "\n" not in line
        assert "MemoryError" not in line, line  # running out of memory is not a refusal
        assert "llocate memory" not in line, line
        return line
    return "read"


def written(path: Path, data: bytes) -> Path:
    """Write the bytes to the file and return its path."""
    path.write_bytes(data)
    return path


def shapes_of(architecture: Architecture) -> None:
    """Build the model on the meta device, without memory for its parameters."""
    with torch.device("meta"):
        DetectionModel(architecture)


@functools.cache
def small_network() -> Architecture:
    """A network of two convolutions."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"small-{os.getpid()}.cfg"
    path.write_text(SMALL_CFG)
    try:
        return read_network(path).architecture
    finally:
        path.unlink()


def _make_images(folder: Path) -> None:
    for name in ("images/a.jpg", "images/b/c.png"):
        file = folder / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            (folder / "list.txt").write_text("images/a.jpg\n./gone.jpg\n")


class Escaped(BaseException):
    """Code in a file was executed."""


@contextlib.contextmanager
def programs_forbidden() -> Iterator[None]:
    """While a file is read, the functions that pickles use to run programs raise Escaped."""
    kept = os.system, os.popen
    os.system = os.popen = _escape  # type: ignore[assignment]
    try:
        yield
    finally:
        os.system, os.popen = kept


def _escape(*_: object) -> None:
    raise Escaped
