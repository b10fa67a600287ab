"""Plots of a run: batches as the network gets them, curves, confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from yolo_cli import plots
from yolo_cli.batch import Batch, Detections
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.evaluation.evaluator import Metrics

DRAWN_BATCHES = 3
DRAWN_IMAGES = 16
DRAWN_CONFIDENCE = 0.25  # the many detections below it would hide the image


class ValidationImages:
    """Observer of an evaluation that draws its first batches: val_batchN_labels.jpg and val_batchN_pred.jpg."""

    def __init__(self, folder: Path, names: Sequence[str], index: LabelIndex) -> None:
        self.folder, self.names, self.index = folder, names, index

    def __call__(self, number: int, batch: Batch, predicted: Sequence[Detections]) -> None:
        if number >= DRAWN_BATCHES:
            return
        predictions = []
        for detections in predicted[:DRAWN_IMAGES]:
            drawn = detections.confidence >= DRAWN_CONFIDENCE
            columns = (detections.class_id[drawn, None], detections.xyxy[drawn], detections.confidence[drawn, None])
            predictions.append(torch.cat([c.float().cpu() for c in columns], 1))
        for boxes, kind in ((label_rows(batch), "labels"), (predictions, "pred")):
            draw_batch(self.folder / f"val_batch{number}_{kind}.jpg", batch, boxes, self.names, self.index)


class TrainImages:
    """Draws the first batches of a training: train_batchN.jpg."""

    def __init__(self, folder: Path, names: Sequence[str], index: LabelIndex) -> None:
        self.folder, self.names, self.index = folder, names, index

    def __call__(self, number: int, batch: Batch) -> None:
        if number < DRAWN_BATCHES:
            draw_batch(self.folder / f"train_batch{number}.jpg", batch, label_rows(batch), self.names, self.index)


def draw_batch(path: Path, batch: Batch, boxes: Sequence[Tensor], names: Sequence[str], index: LabelIndex) -> None:
    """Draw a grid of images. `boxes`: rows class, x1, y1, x2, y2[, confidence] of each image, in canvas pixels."""
    captions = [index.path(i).name for i in batch.indices[:DRAWN_IMAGES]]
    plots.image_grid(batch.images[:DRAWN_IMAGES].cpu(), boxes, names, path, captions=captions)


def label_rows(batch: Batch) -> list[Tensor]:
    """The ground truth of each drawn image: rows class, x1, y1, x2, y2 in canvas pixels."""
    height, width = batch.images.shape[2:]
    corners = cxcywh_to_xyxy(batch.targets[:, 2:]) * batch.targets.new_tensor([width, height] * 2)
    rows = torch.cat((batch.targets[:, 1:2], corners), 1).cpu()
    image = batch.targets[:, 0].cpu()
    return [rows[image == i] for i in range(min(len(batch.indices), DRAWN_IMAGES))]


def write_curves(folder: Path, metrics: Metrics, names: Sequence[str]) -> None:
    """Write confusion_matrix.png and the P, R, F1 and PR curves."""
    plots.confusion_figure(metrics.confusion, names, folder / "confusion_matrix.png")
    curves = metrics.curves
    class_names = [names[i] for i in curves.class_ids]
    for kind, values in (("P", curves.precision), ("R", curves.recall), ("F1", curves.f1)):
        axis = {"P": "precision", "R": "recall", "F1": "F1"}[kind]
        plots.curve_figure(curves.confidence, values, class_names, folder / f"{kind}_curve.png", quantity=axis)
    plots.pr_figure(curves.recall_grid, curves.envelope, class_names, folder / "PR_curve.png")
