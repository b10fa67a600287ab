"""Large images in overlapping tiles: where the tiles lie, and how their detections become one result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.greedy_nms import nms

OVERLAP = 0.2  # fraction of a tile's side; an object smaller than this is whole in at least one tile
_NEAR = 3.0  # pixels; a box this close to a tile's edge counts as cut by it
_COVERED = 0.5  # a cut box with more than this fraction inside a whole box is a part of that object
_PAIRS = 2**20  # of boxes that are compared at once
_ALIGNED = 0.6  # IoU along a tile's edge above which two cut boxes belong to one object


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def split_into_tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of `side` pixels, evenly spread; none where the whole image fits into one."""
    if height <= side and width <= side:
        return []
    tops, lefts = _starts(height, side), _starts(width, side)
    return [Tile(x, y, min(x + side, width), min(y + side, height)) for y in tops for x in lefts]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def merge_tiles(
    whole: Detections,
    parts: Sequence[tuple[Tile, Detections]],
    size: tuple[int, int],
    *,
    iou: float,
    max_det: int,
    agnostic: bool,
) -> Detections:
    """Merge detections of an image of `size` (height, width) and of its tiles.

    Boxes of `parts` are in pixels of their tiles. A box that a tile's edge cuts is dropped where a whole box of its
    class covers it; cut boxes that continue each other are joined.
    """
    boxes, scores, ids, cut = [whole.xyxy], [whole.confidence], [whole.class_id], [_none(len(whole))]
    for tile, found in parts:
        boxes.append(found.xyxy + found.xyxy.new_tensor([tile.left, tile.top] * 2))
        scores.append(found.confidence)
        ids.append(found.class_id)
        cut.append(_cut(boxes[-1], tile, size))
    box, score, class_id, is_cut = torch.cat(boxes), torch.cat(scores), torch.cat(ids), torch.cat(cut)
    group = torch.zeros_like(class_id) if agnostic else class_id
    full = (~is_cut).nonzero().squeeze(1)
    full = full[nms(box[full], score[full], group[full], iou)]
    loose = is_cut.nonzero().squeeze(1)
    loose = loose[~_covered(box[loose], group[loose], box[full], group[full])]
    joined_box, joined_score, joined_id = _join(box[loose], score[loose], class_id[loose], group[loose])
    box = torch.cat((box[full], joined_box))
    score = torch.cat((score[full], joined_score))
    class_id = torch.cat((class_id[full], joined_id))
    group = torch.zeros_like(class_id) if agnostic else class_id
    kept = nms(box, score, group, iou)[:max_det]
    return Detections(box[kept], score[kept], class_id[kept], whole.names)


def _none(count: int) -> Bool[Tensor, " n"]:
    return torch.zeros(count, dtype=torch.bool)


def _cut(boxes: Float[Tensor, "n 4"], tile: Tile, size: tuple[int, int]) -> Bool[Tensor, " n"]:
    """Which boxes reach an edge of their tile that is not also an edge of the image."""
    height, width = size
    cut = _none(len(boxes))
    if tile.left > 0:
        cut |= boxes[:, 0] <= tile.left + _NEAR
    if tile.top > 0:
        cut |= boxes[:, 1] <= tile.top + _NEAR
    if tile.right < width:
        cut |= boxes[:, 2] >= tile.right - _NEAR
    if tile.bottom < height:
        cut |= boxes[:, 3] >= tile.bottom - _NEAR
    return cut


def _covered(
    boxes: Float[Tensor, "n 4"], group: Tensor, others: Float[Tensor, "m 4"], other_group: Tensor
) -> Bool[Tensor, " n"]:
    """Which boxes are covered by a box of `others` of the same class."""
    covered = _none(len(boxes))
    for value in group.unique().tolist():
        own, theirs = (group == value).nonzero().squeeze(1), others[other_group == value]
        for part in own.split(max(_PAIRS // max(len(theirs), 1), 1)):
            box = boxes[part]
            low = torch.maximum(box[:, None, :2], theirs[None, :, :2])
            high = torch.minimum(box[:, None, 2:], theirs[None, :, 2:])
            inside = (high - low).clamp(min=0).prod(2)
            area = (box[:, 2:] - box[:, :2]).prod(1).clamp(min=1e-6)
            covered[part] = (inside / area[:, None] > _COVERED).any(1)
    return covered


def _join(
    boxes: Float[Tensor, "n 4"], scores: Tensor, ids: Tensor, group: Tensor
) -> tuple[Float[Tensor, "k 4"], Tensor, Tensor]:
    """Join boxes of one class that touch and are aligned along an axis. The result has the highest confidence."""
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, ids, group = boxes[order].clone(), scores[order], ids[order], group[order]
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for value in group.unique().tolist():
        rows = (group == value).nonzero().squeeze(1)
        joined, kept = _join_class(boxes[rows].numpy())
        boxes[rows], alive[rows] = torch.from_numpy(joined), torch.from_numpy(kept)
    return boxes[alive], scores[alive], ids[alive]


def _join_class(boxes: Float32[np.ndarray, "n 4"]) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
    """Boxes of one class, the most confident first, each with those that it was joined with; which ones are left.

    In NumPy, whose calls on a few boxes cost a tenth of PyTorch's.
    """
    low, high = boxes[:, :2].copy(), boxes[:, 2:].copy()
    alive = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        while alive[i]:
            shared = np.minimum(high[i], high) - np.maximum(low[i], low)
            near = np.flatnonzero(alive & (shared > 0).all(1))
            near = near[near != i]
            if not len(near):
                break
            span = np.maximum(high[i], high[near]) - np.minimum(low[i], low[near])
            aligned = near[(shared[near] / np.maximum(span, np.float32(1e-6)) > _ALIGNED).any(1)]
            if not len(aligned):
                break
            low[i] = np.minimum(low[i], low[aligned].min(0))
            high[i] = np.maximum(high[i], high[aligned].max(0))
            alive[aligned] = False
    return np.concatenate([low, high], axis=1), alive
