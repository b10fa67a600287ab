"""Truths and detections of a whole data set as flat columns, one row per box and no Python object per box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Labelled boxes: position of the image, class, box (left, top, width, height in pixels), crowd region or not."""

    image: Int[np.ndarray, " m"]
    class_id: Int[np.ndarray, " m"]
    xywh: Float[np.ndarray, "m 4"]
    crowd: Bool[np.ndarray, " m"]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Detected boxes, laid out like `Truths`; within an image in the order in which the detector gave them."""

    image: Int[np.ndarray, " n"]
    class_id: Int[np.ndarray, " n"]
    xywh: Float[np.ndarray, "n 4"]
    confidence: Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Columns:
    """A data set's boxes; images stand in ascending order of their ids, and boxes in the order of their images."""

    image_ids: Int[np.ndarray, " images"]
    sizes: Int[np.ndarray, "images 2"]  # height, width in pixels
    truths: GroundTruth
    found: Predictions

    @staticmethod
    def join(parts: Sequence["Columns"]) -> "Columns":
        """All parts as one, whatever their order: equal confidences are ranked by image id, as pycocotools ranks them.

        Raises `ValueError` for an image that is in the parts twice.
        """
        if not parts:
            parts = [columns([], [], [], [])]
        ids = np.concatenate([part.image_ids for part in parts])
        order = np.argsort(ids, kind="stable")
        twice = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(twice):
            raise ValueError(f"image {ids[order][twice[0]]} was given to the evaluator twice")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        offsets = np.cumsum([0] + [len(part.image_ids) for part in parts])[:-1]
        truth_image = np.concatenate([place[p.truths.image + o] for p, o in zip(parts, offsets, strict=True)])
        found_image = np.concatenate([place[p.found.image + o] for p, o in zip(parts, offsets, strict=True)])
        by_truth, by_found = np.argsort(truth_image, kind="stable"), np.argsort(found_image, kind="stable")
        truths = GroundTruth(
            truth_image[by_truth],
            np.concatenate([part.truths.class_id for part in parts])[by_truth],
            np.concatenate([part.truths.xywh for part in parts])[by_truth],
            np.concatenate([part.truths.crowd for part in parts])[by_truth],
        )
        found = Predictions(
            found_image[by_found],
            np.concatenate([part.found.class_id for part in parts])[by_found],
            np.concatenate([part.found.xywh for part in parts])[by_found],
            np.concatenate([part.found.confidence for part in parts])[by_found],
        )
        return Columns(ids[order], np.concatenate([part.sizes for part in parts])[order], truths, found)


def columns(
    image_ids: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    truths: Sequence[Float[Tensor, "_ 5"]],
    detections: Sequence[Detections],
    crowd: Sequence[Bool[Tensor, " _"]] | None = None,
) -> Columns:
    """The columns of a few images, in the order given.

    `sizes` are (height, width); `truths` rows are (class, x1, y1, x2, y2) in pixels; `crowd` marks the truths that
    are crowd regions (none where left out). Raises `ValueError` where the lengths do not go together.
    """
    given = {len(image_ids), len(sizes), len(truths), len(detections)} | ({len(crowd)} if crowd is not None else set())
    if len(given) > 1:
        raise ValueError(f"image ids, sizes, truths, detections and crowd flags differ in number: {sorted(given)}")
    labels = _joined(truths, (0, 5))
    flags = _joined(crowd, (0,)) if crowd is not None else np.zeros(len(labels))
    if len(flags) != len(labels):
        raise ValueError(f"{len(flags)} crowd flags for {len(labels)} truths")
    return Columns(
        np.asarray(image_ids, dtype=np.int64),
        np.asarray(sizes, dtype=np.int64).reshape(-1, 2),
        GroundTruth(_image_of(truths), labels[:, 0].astype(np.int64), _xywh(labels[:, 1:]), flags > 0),
        Predictions(
            _image_of(detections),
            _joined([d.class_id for d in detections], (0,)).astype(np.int64),
            _xywh(_joined([d.xyxy for d in detections], (0, 4))),
            np.nan_to_num(_joined([d.confidence for d in detections], (0,))),
        ),
    )


def _joined(tensors: Sequence[Tensor], empty: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """One float64 array of all rows: one copy from the device a call, not one an image."""
    if not tensors:
        return np.zeros(empty)
    return np.asarray(torch.cat(list(tensors)).detach().cpu().double().numpy())


def _image_of(rows: Sequence[Tensor] | Sequence[Detections]) -> Int[np.ndarray, " n"]:
    return np.repeat(np.arange(len(rows)), [len(r) for r in rows]) if len(rows) else np.zeros(0, dtype=np.int64)


def _xywh(xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Left, top, width, height. A box that is not finite (a model diverged) becomes a false positive at 0, 0."""
    boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    boxes[~np.isfinite(boxes).all(axis=1)] = 0
    return boxes
