"""Weight files of any kind: `load_weights` gives their contents, `load_model` a model that is ready to run.

| kind | reader |
|---|---|
| our checkpoints | checkpoint.py |
| .pt files of other projects | pytorch/ |
| Darknet's .weights with their .cfg | darknet/ |
| exported files (ONNX, OpenVINO, …) | export/formats.py |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.config.thresholds import Conf, SavedThresholds, conf_text, is_below
from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.errors import UserError
from yolo_cli.export.formats import FORMATS, format_of, open_exported
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter, Stderr
from yolo_cli.weights import checkpoint
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.darknet.weights import Header, is_darknet, read_weights
from yolo_cli.weights.license import license_of
from yolo_cli.weights.networks import is_darknet_cfg
from yolo_cli.weights.published import PUBLISHED, PublishedWeights, find_published
from yolo_cli.weights.pytorch.reader import read_checkpoint

UNSAFE_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
WHERE_TO_GET_WEIGHTS = f"give a file, or free published weights by name: {', '.join(PUBLISHED)}"


@dataclass(frozen=True, slots=True)
class Weights:
    """The contents of a weight file: all that is needed to rebuild the model."""

    path: Path
    origin: str  # "yolo_cli", "pytorch" or "darknet"
    architecture: Architecture
    names: tuple[str, ...]
    state: Mapping[str, Tensor]
    epoch: int = -1
    img: tuple[int, int] | None = None  # height and width of the network's input, where the file has them
    header: Header | None = None  # of a Darknet file
    part: str = ""  # a description of the part that it holds, where that is not the whole network
    was_fused: bool = False  # whether the file had its batch norms folded into the convolutions
    notes: tuple[str, ...] = ()  # for the user, as are warnings
    warnings: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)  # the state to resume from, where the file has one
    base_license: str = ""  # of the weights that a checkpoint of ours was trained from
    thresholds: SavedThresholds | None = None  # of a checkpoint of ours, chosen by `yolo val --save-thresholds`

    @property
    def license(self) -> str:
        """The license in words, as far as the file tells."""
        return license_of(self.origin, self.architecture, self.names, self.base_license)

    def build_model(self) -> DetectionModel:
        """The model with these weights. Raises UserError where they do not fit the file's own architecture."""
        if self.part:
            fix = "start a training from it: yolo train --cfg NET.cfg --weights FILE"
            raise UserError(f"holds {self.part}, not a whole network", where=self.path, fix=fix)
        try:
            # A file of a few bytes may describe a model of gigabytes.
            model = DetectionModel(self.architecture, self.names, max_parameters=_count_numbers(self.state))
        except UserError as error:
            raise UserError(f"its weights do not fit its architecture: {error.what}", where=self.path) from None
        state = with_anchors_of(model, self.state)
        if difference := _difference(state, model.state_dict()):
            raise UserError(f"its weights do not fit its architecture: {difference}", where=self.path)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:  # a tensor of a kind that cannot be copied, such as a sparse one
            detail = " ".join(str(error).split())
            raise UserError(f"its weights cannot be loaded ({detail[:160]})", where=self.path) from None
        return model


def find_weights(name: str, *, reporter: Reporter | None = None, exported: bool = False) -> Path:
    """The path that `--weights` names. With `exported` it may be an exported file or folder, too.

    Published weights can be given by name. They are downloaded where they are not on this machine; `reporter` (by
    default the standard error) gets the source. Raises UserError where there is no such file.
    """
    path = Path(os.path.expanduser(name))
    if exported and path.exists() and format_of(path):
        return path
    if not path.is_file() and name in PUBLISHED:
        return find_published(name, reporter or Stderr(), _check_published)
    if not path.is_file():
        what = "is a folder, not a weight file" if path.is_dir() else "no such weight file"
        raise UserError(what, where=f"--weights {name}", fix=WHERE_TO_GET_WEIGHTS)
    return path


def load_weights(path: Path, *, cfg: str = "", reporter: Reporter | None = None) -> Weights:
    """The contents of a weight file, ours or another project's; `reporter` gets its notes and warnings.

    `cfg` is the .cfg of a Darknet file. Where it is left out, the .cfg of the same name beside the file is used.
    Raises UserError for a file that is missing, damaged, hostile, or of an unknown kind.
    """
    if not path.is_file():
        raise UserError("no such weight file", where=path, fix=WHERE_TO_GET_WEIGHTS)
    weights = _from_darknet(path, cfg) if is_darknet(path) else _from_torch_file(path)
    if reporter is not None:
        for note in weights.notes:
            reporter.info(note)
        for warning in weights.warnings:
            reporter.warn(f"{path}: {warning}")
    return weights


def _check_published(path: Path, published: PublishedWeights) -> None:
    """Raises UserError where a file does not hold the network that it should, by names and shapes."""
    weights = load_weights(path)
    weights.build_model()
    architecture = weights.architecture
    if architecture.name != published.architecture or architecture.nc != find_architecture(architecture.name).nc:
        raise UserError(f"holds {architecture.name} with {architecture.nc} classes")


def _from_torch_file(path: Path) -> Weights:
    if os.environ.get(UNSAFE_SWITCH):  # with it, torch runs code of a file even where the caller forbids it
        raise UserError("is set, which makes torch run code of weight files", where=UNSAFE_SWITCH, fix="unset it")
    own = checkpoint.read(path)
    if own is not None:
        return Weights(
            path,
            "yolo_cli",
            own.architecture,
            own.names,
            own.state,
            own.epoch,
            own.img,
            own.header,
            training=own.training,
            base_license=own.base_license,
            thresholds=own.thresholds,
        )
    found = read_checkpoint(path)
    names = found.names if len(found.names) == found.architecture.nc else _numbered_names(found.architecture)
    return Weights(path, "pytorch", found.architecture, names, found.state, was_fused=found.was_fused)


def _from_darknet(path: Path, cfg: str) -> Weights:
    beside = path.with_suffix(".cfg")
    given = Path(os.path.expanduser(cfg)) if is_darknet_cfg(cfg) else None
    if given is None and not beside.is_file():
        fix = f"give it: --cfg NET.cfg, or put it beside the file as {beside.name}"
        raise UserError("Darknet weights do not contain their network", where=path, fix=fix)
    network = read_network(given or beside)
    found = read_weights(path, network.architecture)
    notes = [] if given else [f"--cfg left out: using {beside}, beside the weights"]
    part = ""
    if found.convolutions < found.total:
        part = f"the first {found.convolutions} of {found.total} convolutions"
        notes.append(f"{path} holds {part} of {network.architecture.name}")
    return Weights(
        path,
        "darknet",
        network.architecture,
        _numbered_names(network.architecture),
        found.state,
        img=(network.height, network.width),
        header=found.header,
        part=part,
        notes=tuple(notes),
        warnings=found.warnings,
    )


def _numbered_names(architecture: Architecture) -> tuple[str, ...]:
    return tuple(str(i) for i in range(architecture.nc))


def _count_numbers(state: Mapping[str, Tensor]) -> int:
    """How many numbers the storages of a state hold. Tensors may share a storage, or repeat one number many times."""
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() // value.element_size()
        for value in state.values()
    }
    return sum(storages.values())


def with_anchors_of(model: DetectionModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the anchors of `model` where it has none, and without those that `model` does not store.

    Darknet keeps anchors in the .cfg. Some published checkpoints store them twice, in cells and in pixels.
    """
    own = model.state_dict()
    head = f"model.{len(model.model) - 1}."
    surplus = {f"{head}anchor_grid"} - own.keys()
    missing = {name: own[name] for name in (f"{head}anchors", f"{head}anchor_grid") if name in own}
    return {**missing, **{name: value for name, value in state.items() if name not in surplus}}


def _difference(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first difference in names or shapes; "" for none."""
    if missing := [name for name in expected if name not in state]:
        return f"{missing[0]} is missing, and {len(missing) - 1} others" if missing[1:] else f"{missing[0]} is missing"
    if unknown := [name for name in state if name not in expected]:
        return f"the network has no {unknown[0]}"
    for name, value in expected.items():
        if state[name].shape != value.shape:
            return f"{name} has the shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
    return ""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run."""

    path: Path
    runtime: Runtime
    weights: Weights | None = None  # None for an exported file

    @property
    def names(self) -> tuple[str, ...]:
        """Class names."""
        return self.runtime.metadata.names

    @property
    def stride(self) -> int:
        """Image sides must be multiples of it."""
        return self.runtime.metadata.stride

    @property
    def img(self) -> tuple[int, int] | None:
        """The one input size (height, width) of a file with a fixed size; None where any size will do."""
        metadata = self.runtime.metadata
        return None if metadata.dynamic else metadata.img


def load_model(
    path: Path, device: torch.device, reporter: Reporter, *, cfg: str = "", half: bool = False
) -> LoadedModel:
    """A model that is ready to run: checkpoints run in PyTorch, exported files in their own runtime.

    `cfg` is the network of Darknet weights. `half` runs a checkpoint in half precision.
    Raises UserError for a file that is damaged, hostile, or cannot run on this machine.
    """
    check_cfg(path, cfg)
    name = format_of(path)
    if not name:
        weights = load_weights(path, cfg=cfg, reporter=reporter)
        model = weights.build_model()
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            reporter.warn(f"{path}: some weights are not finite, so its detections are meaningless")
        runtime = TorchRuntime(model, device, half=half, thresholds=weights.thresholds)
        return LoadedModel(path, runtime, weights)
    if half:
        raise UserError("is set when a model is exported", where="--half", fix="leave it out")
    if warning := FORMATS[name].runs_code:
        reporter.warn(f"{path}: {warning}: use only files that you made")
    exported = open_exported(path, device)
    metadata = exported.metadata
    size = "any size" if metadata.dynamic else f"{metadata.img[1]}×{metadata.img[0]}"
    precision = " in half precision" if metadata.half else " in 8 bits" if metadata.int8 else ""
    reporter.info(f"{path}: {name}{precision}, made by {metadata.producer} for {size}")
    return LoadedModel(path, exported)


def check_cfg(path: Path, cfg: str) -> None:
    """Raises UserError where `--cfg` is given to a file that contains its network."""
    if cfg and not is_darknet(path):
        raise UserError("only Darknet weights take a network", where=f"--cfg {cfg}", fix="leave it out")


def resolve_image_size(
    model: LoadedModel, requested: tuple[int, int], default: tuple[int, int], reporter: Reporter
) -> tuple[int, int]:
    """The (height, width) to run at: `requested`, the value of `--img`, unless the file has a fixed size.

    Warns where the fixed size is neither the requested one nor was `--img` left at its `default`.
    """
    if model.img is None:
        return checked_image_size(requested, model.stride, reporter)
    if requested not in (default, model.img):
        height, width = model.img
        reporter.warn(f"{model.path}: takes only {width}×{height}, so --img has no effect; export it with --dynamic")
    return model.img


def warn_of_fixed_thresholds(model: LoadedModel, conf: Conf, iou: float, max_det: int, reporter: Reporter) -> None:
    """Warn where the requested thresholds have no effect, because NMS with its own thresholds is inside the file."""
    nms = model.runtime.metadata.nms
    if nms is None:
        return
    if is_below(conf, nms.conf) or iou != nms.iou or max_det > nms.max_det:
        own = f"NMS is inside the file, at --conf {conf_text(nms.conf)} --iou {nms.iou:g} --max-det {nms.max_det}"
        reporter.warn(f"{model.path}: {own}; of yours, only a higher --conf and a lower --max-det have an effect")
