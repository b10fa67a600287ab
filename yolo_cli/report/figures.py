"""The charts of a report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from yolo_cli.report.charts import Chart, Series, legend, svg, value_range
from yolo_cli.report.findings import Findings
from yolo_cli.report.text import decimals, shortened

MAX_PR_CURVES = 100  # classes, those with the most boxes
_UNIT = (0.0, 1.0)
_TRAINING = (
    ("Box loss", {"train/box_loss": "training", "val/box_loss": "validation"}),
    ("Objectness loss", {"train/obj_loss": "training", "val/obj_loss": "validation"}),
    ("Class loss", {"train/cls_loss": "training", "val/cls_loss": "validation"}),
    ("Metrics", {"metrics/mAP_0.5": "mAP@0.5", "metrics/mAP_0.5:0.95": "mAP@0.5:0.95", "metrics/precision": "precision",
                 "metrics/recall": "recall"}),
    ("Learning rate", {"x/lr0": "weights", "x/lr1": "norms", "x/lr2": "biases"}),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and legend. `class_id` is that of a curve of one class."""

    heading: str
    chart: Markup
    legend: Markup = field(default_factory=Markup)
    class_id: int = -1


def pr_figures(findings: Findings) -> list[Figure]:
    """Precision over recall at IoU 0.5 of the classes with the most boxes, in the order of the classes."""
    curves, figures = findings.metrics.curves, []
    labels = np.array([each.labels for each in findings.metrics.per_class])
    shown = np.sort(np.argsort(-labels, kind="stable")[:MAX_PR_CURVES])
    for row in shown.tolist():
        class_id = int(curves.class_ids[row])
        name = shortened(findings.saved.names[class_id])
        points = list(zip(curves.recall_grid.tolist(), curves.envelope[row].tolist(), strict=True))
        ap = findings.metrics.per_class[row].map50
        title = f"{name}: precision over recall, AP@0.5 {decimals(100 * ap, 1)}"
        chart = Chart(title, "recall", "precision", _UNIT, _UNIT, [Series(name, _corners(points))], size=(220, 170))
        figures.append(Figure(name, svg(chart), class_id=class_id))
    return figures


def mean_figure(findings: Findings) -> Figure | None:
    """Mean precision, recall and F1 over confidence, with the threshold marked; None without ground truth."""
    curves = findings.metrics.curves
    if not len(curves.class_ids):
        return None
    known = np.isfinite(curves.precision)
    total = np.where(known, curves.precision, 0).sum(axis=0)
    precision = np.divide(total, known.sum(axis=0), out=np.full(total.shape, math.nan), where=known.any(axis=0))
    lines = {"precision": precision, "recall": curves.recall.mean(axis=0), "F1": curves.f1.mean(axis=0)}
    x = curves.confidence.tolist()
    series = [
        Series(name, list(zip(x, y.tolist(), strict=True)), f"s{i}") for i, (name, y) in enumerate(lines.items(), 1)
    ]
    title = f"Precision, recall and F1 over confidence; F1 is highest at {decimals(findings.threshold)}"
    chart = Chart(title, "confidence", "mean over classes", _UNIT, _UNIT, series, mark_x=findings.threshold)
    return Figure("Precision, recall and F1 over confidence", svg(chart), legend(series))


def calibration_figure(findings: Findings) -> Figure:
    """Precision over confidence; the diagonal is a perfect calibration."""
    points = [(each.confidence, each.precision.value) for each in findings.calibration.bins if each.precision.count]
    series = [Series("this model", points, "s1", dots=True)]
    title = "Precision over confidence of the predictions above the threshold; table below"
    chart = Chart(title, "confidence", "precision", _UNIT, _UNIT, series, mark_x=findings.threshold, diagonal=True)
    return Figure("Confidence against precision", svg(chart), legend([*series, Series("perfect", [], "ideal")]))


def training_figures(epochs: Mapping[str, list[float]]) -> list[Figure]:
    """Curves of a training; none without results.csv."""
    number = [1 + value for value in epochs.get("epoch", [])]
    figures = []
    for heading, columns in _TRAINING:
        series = [
            Series(name, list(zip(number, epochs[column], strict=True)), f"s{i}", dots=len(number) < 20)
            for i, (column, name) in enumerate(columns.items(), 1)
            if any(math.isfinite(value) for value in epochs.get(column, []))
        ]
        if not series or not all(map(math.isfinite, number)):
            continue
        values = [y for each in series for _, y in each.points]
        y_range = _UNIT if heading == "Metrics" else value_range(values)
        x_range = (min(number), max(*number, min(number) + 1))
        chart = Chart(f"{heading} by epoch", "epoch", "", x_range, y_range, series, size=(360, 220), whole_x=True)
        figures.append(Figure(heading, svg(chart), legend(series)))
    return figures


def _corners(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase without the points inside its steps."""
    return [
        point
        for i, point in enumerate(points)
        if i in (0, len(points) - 1) or point[1] != points[i - 1][1] or point[1] != points[i + 1][1]
    ]
