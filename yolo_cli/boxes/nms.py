"""Non-maximum suppression over a detector's decoded output: class-aware and exact."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.errors import UserError

# More candidates than this are cut to the most confident before the quadratic part; the field's customary bound.
MAX_CANDIDATES = 30_000
# On the CPU classes are suppressed in groups of at least so many boxes: the work grows with the square of a group, and
# below this a call costs more than it saves (measured at 64 to 512).
GROUP = 256


@cache
def load_operator() -> None:
    """Register torchvision's operators without importing its Python side, which takes longer than torch itself."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for library in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                break  # a build whose libraries only the package's own import can find
            if hasattr(torch.ops.torchvision, "nms"):
                return
    try:
        import torchvision  # noqa: F401, PLC0415 - the fallback registers the operators by being imported
    except ImportError as error:
        raise UserError(
            f"torchvision does not load here ({error})", fix="install the torchvision that matches your torch"
        ) from None


def nms(
    xyxy: Float[Tensor, "n 4"], confidence: Float[Tensor, " n"], class_id: Int[Tensor, " n"], iou: float
) -> Int[Tensor, " k"]:
    """Indices kept, most confident first: a box goes where one of its own class overlaps it by more than `iou`."""
    load_operator()
    if len(xyxy) == 0:
        return torch.zeros(0, dtype=torch.int64, device=xyxy.device)
    # Classes are moved apart so that one pass serves all; double keeps far-off boxes as exact as near ones.
    span = (xyxy.max() - xyxy.min()).double() + 1
    shifted = xyxy.double() + (class_id.double() * span)[:, None]
    if shifted.is_cuda or len(shifted) <= GROUP:
        return torch.ops.torchvision.nms(shifted, confidence.double(), iou)
    order, sizes = _groups(class_id)
    boxes, scores = shifted[order], confidence[order].double()
    parts, start = [], 0
    for box, score in zip(boxes.split(sizes), scores.split(sizes), strict=True):
        parts.append(torch.ops.torchvision.nms(box, score, iou) + start)
        start += len(box)
    kept = order[torch.cat(parts)].sort().values  # equal confidences stay in the order that they came in
    return kept[confidence[kept].argsort(descending=True, stable=True)]


def _groups(class_id: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], list[int]]:
    """Boxes in the order of their classes, and the sizes of groups of whole classes with GROUP boxes or more each."""
    sizes, size = [], 0
    for count in class_id.bincount().tolist():
        size += count
        if size >= GROUP:
            sizes.append(size)
            size = 0
    return class_id.argsort(stable=True), [*sizes, size] if size else sizes


def non_max_suppression(
    decoded: Float[Tensor, "b n outputs"] | Sequence[Float[Tensor, "_ outputs"]],
    *,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool = False,
    classes: Int[Tensor, " k"] | None = None,
) -> list[Detections]:
    """Detections of each image of a batch, most confident first.

    `decoded` rows are cx, cy, w, h in pixels, objectness, class probabilities; images may have different numbers of
    rows. A confidence is objectness times class probability. With `multi_label` every class above `conf` counts (as in
    validation), else the best alone.
    Nothing depends on the clock, and nothing on the other images of the batch.
    """
    return [
        _select_one(rows, conf, iou, max_det, multi_label=multi_label, agnostic=agnostic, classes=classes)
        for rows in decoded
    ]


def _select_one(
    rows: Tensor,
    conf: float,
    iou: float,
    max_det: int,
    *,
    multi_label: bool,
    agnostic: bool,
    classes: Tensor | None,
) -> Detections:
    # Candidates are chosen before any box is built: most rows fall here, on one number.
    rows = rows[rows[:, 4] > conf]
    scores = rows[:, 5:] * rows[:, 4:5]
    if classes is not None:
        wanted = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        wanted[classes[classes < scores.shape[1]]] = True
        scores = scores.masked_fill(~wanted, 0.0)
    if multi_label:
        row, class_id = (scores > conf).nonzero(as_tuple=True)
        confidence = scores[row, class_id]
    else:
        confidence, class_id = scores.max(dim=1)
        row = (confidence > conf).nonzero().squeeze(1)
        confidence, class_id = confidence[row], class_id[row]
    if len(row) > MAX_CANDIDATES:
        top = confidence.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
        row, class_id, confidence = row[top], class_id[top], confidence[top]
    xyxy = cxcywh_to_xyxy(rows[row, :4].float())
    kept = nms(xyxy, confidence, torch.zeros_like(class_id) if agnostic else class_id, iou)[:max_det]
    return Detections(xyxy[kept], confidence[kept].float(), class_id[kept])
