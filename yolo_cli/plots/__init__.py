"""Figures of a run: functions that take data and write an image file. matplotlib is slow: import this where needed."""

from yolo_cli.drawing import class_color, draw_boxes
from yolo_cli.plots.images import image_grid
from yolo_cli.plots.labels import label_figure
from yolo_cli.plots.metrics import confusion_figure, curve_figure, pr_figure
from yolo_cli.plots.training import results_figure

__all__ = [
    "class_color",
    "confusion_figure",
    "curve_figure",
    "draw_boxes",
    "image_grid",
    "label_figure",
    "pr_figure",
    "results_figure",
]
