"""Our own checkpoint files: state dict, architecture and options as plain data; never a pickled module."""

import errno
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli import __version__
from yolo_cli.errors import UserError
from yolo_cli.foreign import pytorch as foreign
from yolo_cli.model.architecture import Architecture, from_mapping
from yolo_cli.model.build import DetectionModel

FORMAT = "yolo_cli checkpoint"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weight file of any origin gives: enough to rebuild the model."""

    path: Path
    origin: str  # "yolo_cli" or "foreign"
    architecture: Architecture
    names: tuple[str, ...]
    state: Mapping[str, Tensor]
    epoch: int = -1

    def model(self) -> DetectionModel:
        """The model as it was saved. Raises UserError where weights do not fit the file's own architecture."""
        model = DetectionModel(self.architecture, self.names)
        try:
            model.load_state_dict(dict(self.state))
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise UserError(f"its weights do not fit its architecture: {detail[:160]}", where=self.path) from None
        return model


def save(path: Path, model: DetectionModel, *, epoch: int, extra: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint whole or not at all.

    Raises UserError when the device is full or the folder cannot be written; an older file stays as it was.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "producer": f"yolo_cli {__version__}",
        "architecture": model.architecture.with_anchors(_tuples(model.anchors_in_pixels())).to_mapping(),
        "names": list(model.names),
        "strides": list(model.strides),
        "model": {name: value.detach().cpu().clone() for name, value in model.state_dict().items()},
        "epoch": epoch,
        **(extra or {}),
    }
    write_atomically(path, content)


def write_atomically(path: Path, content: Any) -> None:
    """`torch.save` to a temporary file beside `path`, flushed to the device, then renamed over it."""
    # Packed in memory first: torch's own writer hides why a write failed.
    packed = io.BytesIO()
    torch.save(content, packed)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = f"{'free some space; ' if full else ''}what was saved before is intact"
        raise UserError(f"checkpoint cannot be written ({error.strerror})", where=path, fix=fix) from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Weights:
    """A weight file, ours or foreign. Raises UserError for a file that is neither, or is damaged or hostile."""
    if not path.is_file():
        raise UserError("no such weight file", where=path, fix=WHERE_WEIGHTS_COME_FROM)
    own = _read_own(path)
    if own is None:
        read = foreign.read_checkpoint(path)
        names: tuple[str, ...] = read.names if len(read.names) == read.architecture.nc else ()
        return Weights(path, "foreign", read.architecture, names, read.state)
    if own.get("version") != VERSION:
        fix = "install a newer yolo_cli"
        raise UserError(f"checkpoint of version {own.get('version')!r}; this is version {VERSION}", where=path, fix=fix)
    return _weights(path, own)


def _weights(path: Path, own: Mapping[str, Any]) -> Weights:
    architecture, names, state = own.get("architecture"), own.get("names"), own.get("model")
    if not isinstance(architecture, dict) or not isinstance(names, list) or not isinstance(state, dict):
        raise UserError("the checkpoint is incomplete", where=path, fix="use another one of the same run")
    read_back = from_mapping(architecture, name=path.stem, where=path)
    return Weights(path, "yolo_cli", read_back, tuple(map(str, names)), state, int(own.get("epoch", -1)))


def find_weights(name: str) -> Path:
    """The file of `--weights`. Raises UserError that says where weights come from."""
    path = Path(name).expanduser()
    if not path.is_file():
        what = "is a folder, not a weight file" if path.is_dir() else "no such weight file"
        raise UserError(what, where=f"--weights {name}", fix=WHERE_WEIGHTS_COME_FROM)
    return path


WHERE_WEIGHTS_COME_FROM = (
    "train some with `yolo train`, or download published ones yourself: YOLOv5's are at"
    " github.com/ultralytics/yolov5/releases, under AGPL-3.0; nothing is fetched in silence"
)


def _read_own(path: Path) -> dict[str, Any] | None:
    """The content of a file that `save` wrote, None for a foreign one."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not ours: the foreign reader says what is wrong with it
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def _tuples(anchors: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(scale) for scale in anchors)
