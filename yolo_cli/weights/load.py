"""`--weights` of any kind, ready to run: checkpoints in PyTorch, exported files in their own runtime."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.errors import UserError
from yolo_cli.export.formats import format_of, open_exported
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.progress import Reporter
from yolo_cli.weights import checkpoint
from yolo_cli.weights.checkpoint import Weights
from yolo_cli.weights.darknet.weights import is_darknet


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to run, and what its file says."""

    path: Path
    runtime: Runtime
    weights: Weights | None = None  # where it is no exported file

    @property
    def names(self) -> tuple[str, ...]:
        """Its classes."""
        return self.runtime.metadata.names

    @property
    def stride(self) -> int:
        """Image sides are multiples of it."""
        return self.runtime.metadata.stride

    @property
    def img(self) -> tuple[int, int] | None:
        """The one size (height, width) that it takes; None where it takes any."""
        about = self.runtime.metadata
        return None if about.dynamic else about.img


def image_size(
    opened: OpenModel, asked: tuple[int, int], usual: tuple[int, int], reporter: Reporter
) -> tuple[int, int]:
    """The (height, width) to run at: `asked`, the value of `--img`, unless the file takes one size alone.

    That is said where another than the `usual` one, which stands for `--img` left out, was asked for.
    """
    if opened.img is None:
        return checked_image_size(asked, opened.stride, reporter)
    if asked not in (usual, opened.img):
        height, width = opened.img
        reporter.warn(f"{opened.path}: takes {width}×{height} alone, so --img has no effect; export it with --dynamic")
    return opened.img


def find_model(name: str) -> Path:
    """The file, or folder of an exported model, that `--weights` names. Raises UserError."""
    path = Path(os.path.expanduser(name))
    return path if path.exists() and format_of(path) else checkpoint.find_weights(name)


def check_cfg(path: Path, cfg: str) -> None:
    """Raises UserError for a network given to weights that bring their own."""
    if cfg and not is_darknet(path):
        raise UserError("only Darknet weights take a network", where=f"--cfg {cfg}", fix="leave it out")


def open_model(path: Path, device: torch.device, reporter: Reporter, *, cfg: str = "", half: bool = False) -> OpenModel:
    """Open what `find_model` found. Raises UserError for a file that is damaged, hostile or cannot run here.

    `cfg` is the network of Darknet weights, `half` asks for half precision of a checkpoint.
    """
    check_cfg(path, cfg)
    kind = format_of(path)
    if not kind:
        weights = checkpoint.open_weights(str(path), cfg, reporter)
        model = weights.model()
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            reporter.warn(f"{path}: some weights are not finite, so its detections mean nothing")
        return OpenModel(path, TorchRuntime(model, device, half=half), weights)
    if half:
        raise UserError("is decided when a model is exported", where="--half", fix="leave it out")
    if kind in ("aotinductor", "tensorrt"):
        reporter.warn(f"{path}: holds compiled code, which runs now: use only files that you made")
    if kind == "torchscript":  # its operators include some that open and write files
        reporter.warn(f"{path}: is a program, which runs now: use only files that you made")
    runtime = open_exported(path, device)
    about = runtime.metadata
    size = "any size" if about.dynamic else f"{about.img[1]}×{about.img[0]}"
    precision = " in half precision" if about.half else " in 8 bits" if about.int8 else ""
    reporter.info(f"{path}: {kind}{precision}, made by {about.producer} for {size}")
    return OpenModel(path, runtime)


def warn_of_thresholds(opened: OpenModel, conf: float, iou: float, max_det: int, reporter: Reporter) -> None:
    """Say where thresholds cannot be had, since suppression inside the file has its own."""
    nms = opened.runtime.metadata.nms
    if nms is None:
        return
    own = f"suppression is inside the file, at --conf {nms.conf:g} --iou {nms.iou:g} --max-det {nms.max_det}"
    if conf < nms.conf or iou != nms.iou or max_det > nms.max_det:
        reporter.warn(f"{opened.path}: {own}; of yours, only a higher --conf and a lower --max-det have an effect")
