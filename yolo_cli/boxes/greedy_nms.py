"""Greedy non-maximum suppression of the boxes of one image, with torchvision's operator."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from yolo_cli.errors import UserError

# On the CPU, classes are suppressed in groups of at least this many boxes: NMS is quadratic in the size of a group, and
# smaller groups cost more per call than they save (measured for 64 to 512).
MIN_GROUP = 128


@cache
def load_operator() -> None:
    """Register torchvision's operators without importing the Python package, which takes longer than torch itself.

    Falls back to the import if the library is not found or does not load. Raises UserError if that fails, too.
    """
    for library in operator_libraries():
        try:
            torch.ops.load_library(str(library))
        except OSError:
            break  # depends on libraries that only the package's own import finds
        if hasattr(torch.ops.torchvision, "nms"):
            return
    try:
        import torchvision  # noqa: F401, PLC0415 - the import registers the operators
    except ImportError as error:
        raise UserError(
            f"cannot load torchvision ({error})", fix="install the torchvision that matches your torch"
        ) from None


def operator_libraries() -> list[Path]:
    """The files of torchvision that register its operators: a private detail, used only here."""
    spec = importlib.util.find_spec("torchvision")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    return [file for folder in folders for suffix in ("so", "pyd") for file in sorted(folder.glob(f"_C*.{suffix}"))]


def nms(
    xyxy: Float[Tensor, "n 4"], confidence: Float[Tensor, " n"], class_id: Int[Tensor, " n"], iou: float
) -> Int[Tensor, " k"]:
    """Indices of the boxes that remain, most confident first.

    A box is removed if a more confident one of its class that remains has an IoU greater than `iou` with it. Boxes of
    equal confidence are ranked by index.
    """
    load_operator()
    if xyxy.device.type == "mps":  # has no float64
        return nms(xyxy.cpu(), confidence.cpu(), class_id.cpu(), iou).to(xyxy.device)
    if len(xyxy) == 0:
        return torch.zeros(0, dtype=torch.int64, device=xyxy.device)
    # Shift classes apart, so that one call suffices. In float64, large offsets do not cost precision.
    span = (xyxy.max() - xyxy.min()).double() + 1
    shifted = xyxy.double() + (class_id.double() * span)[:, None]
    if not shifted.is_cpu or len(shifted) <= MIN_GROUP:
        return torch.ops.torchvision.nms(shifted, confidence.double(), iou)
    return torch.from_numpy(_by_class(shifted, confidence.numpy(force=True), class_id.numpy(force=True), iou))


def _by_class(
    shifted: Float[Tensor, "n 4"], confidence: Float[np.ndarray, " n"], class_id: Int[np.ndarray, " n"], iou: float
) -> Int[np.ndarray, " k"]:
    """The same on the CPU for many boxes: NMS of one group of classes after the other."""
    ranked = _ranked(confidence)
    grouped = np.argsort(class_id[ranked], kind="stable")  # positions in `ranked`, which are ranks
    boxes = shifted.index_select(0, torch.from_numpy(ranked[grouped]))
    scores = torch.from_numpy(-grouped).double()
    sizes = _group_sizes(np.bincount(class_id))
    parts, start = [], 0
    for box, score in zip(boxes.split(sizes), scores.split(sizes), strict=True):
        parts.append(grouped[start + torch.ops.torchvision.nms(box, score, iou).numpy()])
        start += len(box)
    return ranked[np.sort(np.concatenate(parts))]


def _ranked(confidence: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Positions by descending confidence; equal ones in their order."""
    if confidence.dtype != np.float32 or confidence.min() < 0:
        return np.argsort(-confidence, kind="stable")
    # The bits of positive floats are in their order. With the position in the low half, all keys are distinct, and
    # numpy sorts them in a fifth of the time of a stable sort.
    return np.sort((-(confidence.view(np.int32).astype(np.int64)) << 32) + np.arange(len(confidence))) & 0xFFFFFFFF


def _group_sizes(counts: Int[np.ndarray, " classes"]) -> list[int]:
    """Boxes per group of whole classes, with MIN_GROUP boxes or more; the last group can be smaller."""
    sizes, size = [], 0
    for count in counts.tolist():
        size += count
        if size >= MIN_GROUP:
            sizes.append(size)
            size = 0
    return [*sizes, size] if size else sizes
