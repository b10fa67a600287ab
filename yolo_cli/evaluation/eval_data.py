"""Ground truth and predictions of a dataset as arrays with one row per box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Ground truth boxes."""

    image: Int[np.ndarray, " m"]  # position of the image
    class_id: Int[np.ndarray, " m"]
    xywh: Float[np.ndarray, "m 4"]  # left, top, width, height in pixels of the image file
    crowd: Bool[np.ndarray, " m"]  # whether the box is a crowd region


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted boxes; those of an image in the detector's order."""

    image: Int[np.ndarray, " n"]  # position of the image
    class_id: Int[np.ndarray, " n"]
    xywh: Float[np.ndarray, "n 4"]  # left, top, width, height in pixels of the image file
    confidence: Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class EvalData:
    """Ground truth and predictions of several images, in the order of the images."""

    image_ids: Int[np.ndarray, " images"]
    sizes: Int[np.ndarray, "images 2"]  # height, width in pixels
    ground_truth: GroundTruth
    predictions: Predictions

    @staticmethod
    def from_images(
        image_ids: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        ground_truth: Sequence[Float[Tensor, "_ 5"]],
        detections: Sequence[Detections],
        crowd: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> "EvalData":
        """Convert the boxes of images, given per image.

        Args:
            image_ids: distinct ids.
            sizes: height, width in pixels.
            ground_truth: class, x1, y1, x2, y2 in pixels.
            detections: boxes in pixels.
            crowd: whether ground truth boxes are crowd regions; none by default.

        Raises:
            ValueError: the arguments have different lengths.
        """
        lengths = {len(image_ids), len(sizes), len(ground_truth), len(detections)}
        lengths |= {len(crowd)} if crowd is not None else set()
        if len(lengths) > 1:
            raise ValueError(
                f"image ids, sizes, ground truth, detections and crowd flags differ in number: {sorted(lengths)}"
            )
        labels = _concatenate(ground_truth, (0, 5))
        flags = _concatenate(crowd, (0,)) if crowd is not None else np.zeros(len(labels))
        if len(flags) != len(labels):
            raise ValueError(f"{len(flags)} crowd flags for {len(labels)} ground truth boxes")
        return EvalData(
            np.asarray(image_ids, dtype=np.int64),
            np.asarray(sizes, dtype=np.int64).reshape(-1, 2),
            GroundTruth(_image_of(ground_truth), labels[:, 0].astype(np.int64), _xywh(labels[:, 1:]), flags > 0),
            Predictions(
                _image_of(detections),
                _concatenate([d.class_id for d in detections], (0,)).astype(np.int64),
                _xywh(_concatenate([d.xyxy for d in detections], (0, 4))),
                np.nan_to_num(_concatenate([d.confidence for d in detections], (0,))),
            ),
        )

    @staticmethod
    def join(parts: Sequence["EvalData"]) -> "EvalData":
        """Concatenate parts and sort the images by id: pycocotools ranks equal confidences by image id.

        Raises ValueError if an image id occurs twice.
        """
        if not parts:
            parts = [EvalData.from_images([], [], [], [])]
        ids = np.concatenate([part.image_ids for part in parts])
        order = np.argsort(ids, kind="stable")
        twice = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(twice):
            raise ValueError(f"image {ids[order][twice[0]]} was given to the evaluator twice")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        offsets = np.cumsum([0] + [len(part.image_ids) for part in parts])[:-1]
        gt_image = np.concatenate([position[p.ground_truth.image + o] for p, o in zip(parts, offsets, strict=True)])
        pred_image = np.concatenate([position[p.predictions.image + o] for p, o in zip(parts, offsets, strict=True)])
        gt_order, pred_order = np.argsort(gt_image, kind="stable"), np.argsort(pred_image, kind="stable")
        ground_truth = GroundTruth(
            gt_image[gt_order],
            np.concatenate([part.ground_truth.class_id for part in parts])[gt_order],
            np.concatenate([part.ground_truth.xywh for part in parts])[gt_order],
            np.concatenate([part.ground_truth.crowd for part in parts])[gt_order],
        )
        predictions = Predictions(
            pred_image[pred_order],
            np.concatenate([part.predictions.class_id for part in parts])[pred_order],
            np.concatenate([part.predictions.xywh for part in parts])[pred_order],
            np.concatenate([part.predictions.confidence for part in parts])[pred_order],
        )
        sizes = np.concatenate([part.sizes for part in parts])[order]
        return EvalData(ids[order], sizes, ground_truth, predictions)


def _concatenate(tensors: Sequence[Tensor], empty: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """All rows as one float64 array, with a single copy from the device."""
    if not tensors:
        return np.zeros(empty)
    return torch.cat(list(tensors)).detach().cpu().double().numpy()


def _image_of(rows: Sequence[Tensor] | Sequence[Detections]) -> Int[np.ndarray, " n"]:
    return np.repeat(np.arange(len(rows)), [len(r) for r in rows]) if len(rows) else np.zeros(0, dtype=np.int64)


def _xywh(xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Left, top, width, height. Boxes that are not finite, of a diverged model, become empty boxes at 0, 0."""
    boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    boxes[~np.isfinite(boxes).all(axis=1)] = 0
    return boxes
