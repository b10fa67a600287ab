"""Pictures of a run, each a function from data to a file. Import it where it is needed: matplotlib is slow to load."""

from yolo_cli.drawing import draw_boxes, palette
from yolo_cli.plots.images import image_grid
from yolo_cli.plots.labels import label_figure
from yolo_cli.plots.metrics import confusion_figure, curve_figure, pr_figure
from yolo_cli.plots.training import results_figure

__all__ = [
    "confusion_figure",
    "curve_figure",
    "draw_boxes",
    "image_grid",
    "label_figure",
    "palette",
    "pr_figure",
    "results_figure",
]
