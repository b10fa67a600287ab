"""Our own checkpoint files: state dict, architecture and options as plain data; never a pickled module."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.model.architecture import Architecture, from_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter
from yolo_cli.version import __version__
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.weights import Header, is_darknet, read_weights
from yolo_cli.weights.networks import is_darknet_cfg
from yolo_cli.weights.pytorch import reader as foreign

FORMAT = "yolo_cli checkpoint"
VERSION = 1
UNSAFE_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weight file of any origin gives: enough to rebuild the model."""

    path: Path
    origin: str  # "yolo_cli", "foreign" or "darknet"
    architecture: Architecture
    names: tuple[str, ...]
    state: Mapping[str, Tensor]
    epoch: int = -1
    img: tuple[int, int] | None = None  # height and width that it was trained or made for, where the file says so
    header: Header | None = None  # of the Darknet file that it came from
    part: str = ""  # what it holds, where that is not the whole network
    was_fused: bool = False  # whether the file had its batch norms folded into the convolutions
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(
        default_factory=dict
    )  # the state that a run continues from, where the file has one

    def model(self) -> DetectionModel:
        """The model as it was saved. Raises UserError where weights do not fit the file's own architecture."""
        if self.part:
            fix = "start a training from it: yolo train --cfg NET.cfg --weights FILE"
            raise UserError(f"holds {self.part}, not a whole network", where=self.path, fix=fix)
        try:
            # A file of few bytes may describe a model of gigabytes.
            model = DetectionModel(self.architecture, self.names, max_parameters=_numbers(self.state))
        except UserError as error:
            raise UserError(f"its weights do not fit its architecture: {error.what}", where=self.path) from None
        try:
            model.load_state_dict(fitted(self.state, model))
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise UserError(f"its weights do not fit its architecture: {detail[:160]}", where=self.path) from None
        return model


def _numbers(state: Mapping[str, Tensor]) -> int:
    """How many numbers a state really holds; tensors may be views of one another, or repeat a number without end."""
    held = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() // value.element_size()
        for value in state.values()
    }
    return sum(held.values())


def fitted(state: Mapping[str, Tensor], model: DetectionModel) -> dict[str, Tensor]:
    """A state dict with the anchors that a model of the architecture itself says, where the file's has none or more.

    Darknet keeps anchors in the .cfg; some published checkpoints keep them twice, in cells and in pixels.
    """
    own = model.state_dict()
    head = f"model.{len(model.model) - 1}."
    surplus = {f"{head}anchor_grid"} - own.keys()
    missing = {name: own[name] for name in (f"{head}anchors", f"{head}anchor_grid") if name in own}
    return {**missing, **{name: value for name, value in state.items() if name not in surplus}}


def save(
    path: Path,
    model: DetectionModel,
    *,
    epoch: int,
    extra: Mapping[str, Any] | None = None,
    previous: Path | None = None,
) -> None:
    """Write a checkpoint whole or not at all; with `previous` the older file is kept under that name.

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
    # Packed in memory first: torch's own writer hides why a write failed.
    packed = io.BytesIO()
    torch.save(content, packed)
    write_atomically(path, packed.getbuffer(), what="checkpoint", previous=previous)


def open_weights(name: str, cfg: str, reporter: Reporter) -> Weights:
    """The weights of `--weights`; what is worth knowing of the file is said. `cfg` is `--cfg`, for Darknet's."""
    weights = load(find_weights(name), cfg=cfg)
    for note in weights.notes:
        reporter.info(note)
    for warning in weights.warnings:
        reporter.warn(f"{weights.path}: {warning}")
    return weights


def load(path: Path, *, cfg: str = "") -> Weights:
    """A weight file, ours or foreign. Raises UserError for a file that is neither, or is damaged or hostile.

    `cfg` is the network of a Darknet file; where it is left out, or is no .cfg, one of the same name beside the file.
    """
    if not path.is_file():
        raise UserError("no such weight file", where=path, fix=WHERE_WEIGHTS_COME_FROM)
    if is_darknet(path):
        return _darknet(path, cfg)
    if os.environ.get(UNSAFE_SWITCH):  # torch then runs what a file says, whatever its caller asks for
        raise UserError("is set, which makes torch run code of weight files", where=UNSAFE_SWITCH, fix="unset it")
    own = _read_own(path)
    if own is None:
        read = foreign.read_checkpoint(path)
        names = read.names if len(read.names) == read.architecture.nc else _numbered(read.architecture)
        return Weights(path, "foreign", read.architecture, names, read.state, was_fused=read.was_fused)
    if own.get("version") != VERSION:
        fix = "install a newer yolo_cli"
        raise UserError(f"checkpoint of version {own.get('version')!r}; this is version {VERSION}", where=path, fix=fix)
    return _weights(path, own)


def _darknet(path: Path, cfg: str) -> Weights:
    beside = path.with_suffix(".cfg")
    given = Path(os.path.expanduser(cfg)) if is_darknet_cfg(cfg) else None
    if given is None and not beside.is_file():
        fix = f"give it: --cfg NET.cfg, or put it beside the file as {beside.name}"
        raise UserError("Darknet weights say nothing of their network", where=path, fix=fix)
    network = read_network(given or beside)
    read = read_weights(path, network.architecture)
    notes = [] if given else [f"--cfg left out: {beside}, beside the weights"]
    part = ""
    if read.convolutions < read.of:
        part = f"the first {read.convolutions} of {read.of} convolutions"
        notes.append(f"{path} holds {part} of {network.architecture.name}")
    return Weights(
        path,
        "darknet",
        network.architecture,
        _numbered(network.architecture),
        read.state,
        img=(network.height, network.width),
        header=read.header,
        part=part,
        notes=tuple(notes),
        warnings=read.warnings,
    )


def _numbered(architecture: Architecture) -> tuple[str, ...]:
    """Names of classes that have none."""
    return tuple(str(i) for i in range(architecture.nc))


def _weights(path: Path, own: Mapping[str, Any]) -> Weights:
    architecture, names, state = own.get("architecture"), own.get("names"), own.get("model")
    if not isinstance(architecture, dict) or not isinstance(names, list) or not isinstance(state, dict):
        raise UserError("the checkpoint is incomplete", where=path, fix="use another one of the same run")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("its weights are not all tensors", where=path, fix="use another one of the same run")
    epoch = own.get("epoch", -1)
    read_back = from_mapping(architecture, name=path.stem, where=path)
    img, header = _whole_numbers(own.get("img"), 2), _whole_numbers(own.get("darknet_header"), 4)
    return Weights(
        path,
        "yolo_cli",
        read_back,
        tuple(map(str, names)),
        state,
        epoch if isinstance(epoch, int) else -1,
        img=(img[0], img[1]) if img else None,
        header=Header(*header) if header else None,
        training=training if isinstance(training := own.get("training"), dict) else {},
    )


def _whole_numbers(value: Any, count: int) -> list[int]:
    """A list of so many whole numbers; nothing where it is something else."""
    sound = isinstance(value, list) and len(value) == count and all(isinstance(v, int) for v in value)
    return list(value) if sound else []


def find_weights(name: str) -> Path:
    """The file of `--weights`. Raises UserError that says where weights come from."""
    path = Path(os.path.expanduser(name))
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
    if not foreign.is_archive(path):
        return None
    foreign.check_archive(path)
    try:
        # Looked at before anything is loaded: a variable of the environment can switch `weights_only` off.
        if torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return None
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not ours: the foreign reader says what is wrong with it
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    if damaged := _damaged(path):
        raise UserError(f"damaged at {damaged}", where=path, fix="use another checkpoint of the same run")
    return content


def _damaged(path: Path) -> str:
    """The first damaged part of an archive; torch itself does not look at the sums of its files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() or ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"its table of parts ({error})"


def _tuples(anchors: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(scale) for scale in anchors)
