"""Pictures of a run: batches as the network sees them, curves, confusion matrix. Imported where plots are wanted."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from yolo_cli import plots
from yolo_cli.batch import Batch, Detections
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.evaluation.evaluator import Metrics

PICTURED_BATCHES = 3
PICTURED_IMAGES = 16
PICTURED_CONFIDENCE = 0.25  # fainter detections would bury the picture


class ValidationPictures:
    """Observer of an evaluation that draws its first batches: val_batchN_labels.jpg and val_batchN_pred.jpg."""

    def __init__(self, folder: Path, names: Sequence[str], index: LabelIndex) -> None:
        self.folder, self.names, self.index = folder, names, index

    def __call__(self, number: int, batch: Batch, found: Sequence[Detections]) -> None:
        """Draw one batch, if it is among the first."""
        if number >= PICTURED_BATCHES:
            return
        truths = label_rows(batch)
        predictions = []
        for detections in found[:PICTURED_IMAGES]:
            sure = detections.confidence >= PICTURED_CONFIDENCE
            columns = (detections.class_id[sure, None], detections.xyxy[sure], detections.confidence[sure, None])
            predictions.append(torch.cat([c.float().cpu() for c in columns], 1))
        for boxes, kind in ((truths, "labels"), (predictions, "pred")):
            draw_batch(self.folder / f"val_batch{number}_{kind}.jpg", batch, boxes, self.names, self.index)


class TrainPictures:
    """Draws the first batches of a training: train_batchN.jpg."""

    def __init__(self, folder: Path, names: Sequence[str], index: LabelIndex) -> None:
        self.folder, self.names, self.index = folder, names, index

    def __call__(self, number: int, batch: Batch) -> None:
        """Draw one batch, if it is among the first."""
        if number < PICTURED_BATCHES:
            draw_batch(self.folder / f"train_batch{number}.jpg", batch, label_rows(batch), self.names, self.index)


def draw_batch(path: Path, batch: Batch, boxes: Sequence[Tensor], names: Sequence[str], index: LabelIndex) -> None:
    """A grid of a batch's images with rows (class, x1, y1, x2, y2[, confidence]) in canvas pixels."""
    captions = [index.path(i).name for i in batch.indices[:PICTURED_IMAGES]]
    plots.image_grid(batch.images[:PICTURED_IMAGES].cpu(), boxes, names, path, captions=captions)


def label_rows(batch: Batch) -> list[Tensor]:
    """Rows class, x1, y1, x2, y2 in canvas pixels, image by image."""
    height, width = batch.images.shape[2:]
    corners = cxcywh_to_xyxy(batch.targets[:, 2:]) * batch.targets.new_tensor([width, height] * 2)
    rows = torch.cat((batch.targets[:, 1:2], corners), 1).cpu()
    image = batch.targets[:, 0].cpu()
    return [rows[image == i] for i in range(min(len(batch.indices), PICTURED_IMAGES))]


def write_curves(folder: Path, metrics: Metrics, names: Sequence[str]) -> None:
    """confusion_matrix.png and the P, R, F1 and PR curves."""
    plots.confusion_figure(metrics.confusion, names, folder / "confusion_matrix.png")
    curves = metrics.curves
    class_names = [names[i] for i in curves.class_ids]
    for kind, values in (("P", curves.precision), ("R", curves.recall), ("F1", curves.f1)):
        axis = {"P": "precision", "R": "recall", "F1": "F1"}[kind]
        plots.curve_figure(curves.confidence, values, class_names, folder / f"{kind}_curve.png", quantity=axis)
    plots.pr_figure(curves.recall_grid, curves.envelope, class_names, folder / "PR_curve.png")
