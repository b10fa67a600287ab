"""Non-maximum suppression per class."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.config.thresholds import Conf, lowest
from yolo_cli.errors import UserError

MAX_CANDIDATES = 30_000  # of an image, the most confident ones; the usual limit, since NMS is quadratic
# On the CPU, classes are suppressed in groups of at least this many boxes: NMS is quadratic in the size of a group, and
# smaller groups cost more per call than they save (measured for 64 to 512).
MIN_GROUP = 256


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
    if shifted.is_cuda or len(shifted) <= MIN_GROUP:
        return torch.ops.torchvision.nms(shifted, confidence.double(), iou)
    order, sizes = _class_groups(class_id)
    boxes, scores = shifted[order], confidence[order].double()
    parts, start = [], 0
    for box, score in zip(boxes.split(sizes), scores.split(sizes), strict=True):
        parts.append(torch.ops.torchvision.nms(box, score, iou) + start)
        start += len(box)
    kept = order[torch.cat(parts)].sort().values  # by index, for the stable sort
    return kept[confidence[kept].argsort(descending=True, stable=True)]


def _class_groups(class_id: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], list[int]]:
    """The indices of the boxes sorted by class, and the sizes of groups of whole classes with MIN_GROUP boxes or more.

    The last group can be smaller.
    """
    sizes, size = [], 0
    for count in class_id.bincount().tolist():
        size += count
        if size >= MIN_GROUP:
            sizes.append(size)
            size = 0
    return class_id.argsort(stable=True), [*sizes, size] if size else sizes


def non_max_suppression(
    decoded: Float[Tensor, "b n outputs"] | Sequence[Float[Tensor, "_ outputs"]],
    *,
    conf: Conf,
    iou: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool = False,
    classes: Int[Tensor, " k"] | None = None,
) -> list[Detections]:
    """Detections of each image of a batch, most confident first.

    The confidence of a detection is objectness times class probability. The result for an image does not depend on the
    other images of the batch.

    Args:
        decoded: cx, cy, w, h in pixels, objectness, class probabilities; images can have different numbers of rows.
        conf: confidence threshold, exclusive; one for all classes, or one per class.
        iou: IoU threshold for NMS.
        max_det: maximum detections per image.
        multi_label: whether a box can have several classes (as usual in evaluation) or only the most confident one.
        agnostic: whether boxes of different classes suppress each other.
        classes: ids of the classes to detect; all if None.
    """
    return [
        _suppress_image(rows, conf, iou, max_det, multi_label=multi_label, agnostic=agnostic, classes=classes)
        for rows in decoded
    ]


def _suppress_image(
    rows: Tensor,
    conf: Conf,
    iou: float,
    max_det: int,
    *,
    multi_label: bool,
    agnostic: bool,
    classes: Tensor | None,
) -> Detections:
    # Objectness alone removes most rows, before scores and boxes are computed.
    rows = rows[rows[:, 4] > lowest(conf)]
    # The same threshold for all classes stays a number: comparing with one tensor per image would cost more.
    limit = torch.tensor(conf, device=rows.device) if isinstance(conf, tuple) else conf
    scores = rows[:, 5:] * rows[:, 4:5]
    if classes is not None:
        included = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        included[classes[classes < scores.shape[1]]] = True
        scores = scores.masked_fill(~included, 0.0)
    if multi_label:
        row, class_id = (scores > limit).nonzero(as_tuple=True)
        confidence = scores[row, class_id]
    else:
        confidence, class_id = scores.max(dim=1)
        row = (confidence > (limit[class_id] if isinstance(limit, Tensor) else limit)).nonzero().squeeze(1)
        confidence, class_id = confidence[row], class_id[row]
    if len(row) > MAX_CANDIDATES:
        top = confidence.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
        row, class_id, confidence = row[top], class_id[top], confidence[top]
    xyxy = cxcywh_to_xyxy(rows[row, :4].float())
    kept = nms(xyxy, confidence, torch.zeros_like(class_id) if agnostic else class_id, iou)[:max_det]
    return Detections(xyxy[kept], confidence[kept].float(), class_id[kept])
