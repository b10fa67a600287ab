"""Our own checkpoint files: state dict, architecture and options as plain data, never a pickled module."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.config.thresholds import SavedThresholds
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.model.architecture import Architecture, from_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.version import __version__
from yolo_cli.weights.darknet.weights import Header
from yolo_cli.weights.pytorch.archive import check_archive, is_archive

FORMAT = "yolo_cli checkpoint"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a file that `save` wrote."""

    architecture: Architecture
    names: tuple[str, ...]
    state: Mapping[str, Tensor]
    epoch: int  # -1 where the file has none
    img: tuple[int, int] | None  # height and width of the network's input
    header: Header | None  # of the Darknet file that it was converted from
    training: Mapping[str, Any]  # the state to resume from; empty where the file has only weights
    base_license: str  # of the weights that it was trained from; "" where it was trained from scratch
    thresholds: SavedThresholds | None = None  # chosen by `yolo val --save-thresholds`


def save(
    path: Path,
    model: DetectionModel,
    *,
    epoch: int,
    base_license: str = "",
    extra: Mapping[str, Any] | None = None,
    previous: Path | None = None,
) -> None:
    """Write a checkpoint atomically; an older file of that name is moved to `previous`, where it is given.

    Raises UserError when the device is full or the folder is not writable; an older file then stays as it was.
    """
    anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    content = {
        "format": FORMAT,
        "version": VERSION,
        "producer": f"yolo_cli {__version__}",
        "architecture": model.architecture.with_anchors(anchors).to_mapping(),
        "names": list(model.names),
        "strides": list(model.strides),
        "model": {name: value.detach().cpu().clone() for name, value in model.state_dict().items()},
        "epoch": epoch,
        "base_license": base_license,
        **(extra or {}),
    }
    _write(path, content, previous)


def save_thresholds(path: Path, thresholds: SavedThresholds) -> None:
    """Store thresholds in a file that `save` wrote; everything else in it stays. Raises UserError for other files."""
    content = _read_plain(path) if read(path) is not None else None
    if content is None:
        fix = f"make a checkpoint of it: yolo convert {path} {path.stem}_yolo_cli.pt"
        raise UserError("thresholds can be saved only into a checkpoint of yolo_cli", where=path, fix=fix)
    _write(path, {**content, "thresholds": thresholds.to_mapping()})


def _write(path: Path, content: Mapping[str, Any], previous: Path | None = None) -> None:
    # Packed in memory first: the errors of torch's own writer do not give the reason of a failed write.
    packed = io.BytesIO()
    torch.save(dict(content), packed)
    write_atomically(path, packed.getbuffer(), what="checkpoint", previous=previous)


def read(path: Path) -> Checkpoint | None:
    """The content of a file that `save` wrote; None for a file of another kind.

    Raises UserError for a checkpoint that is damaged, incomplete, or of a newer version.
    """
    content = _read_plain(path)
    if content is None or content.get("format") != FORMAT:
        return None
    if damaged := _damaged(path):
        raise UserError(f"damaged at {damaged}", where=path, fix="use another checkpoint of the same run")
    if content.get("version") != VERSION:
        what = f"checkpoint of version {content.get('version')!r}; this is version {VERSION}"
        raise UserError(what, where=path, fix="install a newer yolo_cli")
    architecture, names, state = content.get("architecture"), content.get("names"), content.get("model")
    if not isinstance(architecture, dict) or not isinstance(names, list) or not isinstance(state, dict):
        raise UserError("the checkpoint is incomplete", where=path, fix="use another one of the same run")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("its weights are not all tensors", where=path, fix="use another one of the same run")
    epoch, training = content.get("epoch"), content.get("training")
    img, header = _integers(content.get("img"), 2), _integers(content.get("darknet_header"), 4)
    return Checkpoint(
        from_mapping(architecture, name=path.stem, where=path),
        tuple(map(str, names)),
        state,
        epoch if isinstance(epoch, int) else -1,
        (img[0], img[1]) if img else None,
        Header(*header) if header else None,
        training if isinstance(training, dict) else {},
        str(content.get("base_license", "")),
        _thresholds(content.get("thresholds"), len(names), path),
    )


def _read_plain(path: Path) -> dict[str, Any] | None:
    """The dictionary of a file that holds only plain data; None for any other file."""
    if not is_archive(path):
        return None
    check_archive(path)
    try:
        # Checked before loading, because an environment variable can switch `weights_only` off.
        if torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return None
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not one of ours; the reader of PyTorch files reports what is wrong
        return None
    return content if isinstance(content, dict) else None


def _thresholds(value: Any, classes: int, path: Path) -> SavedThresholds | None:
    if value is None:
        return None
    try:
        return SavedThresholds.from_mapping(value, classes)
    except ValueError as error:
        raise UserError(
            str(error), where=path, fix="choose them again, in another checkpoint of the same run"
        ) from None


def _integers(value: Any, count: int) -> list[int]:
    """A list of `count` integers; empty where the value is anything else."""
    valid = isinstance(value, list) and len(value) == count and all(isinstance(v, int) for v in value)
    return list(value) if valid else []


def _damaged(path: Path) -> str:
    """The first damaged member of a zip file, "" for none. torch itself does not verify checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() or ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"its table of members ({error})"
