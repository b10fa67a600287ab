"""Confusion matrix, and the precision, recall, F1 and PR curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from yolo_cli.drawing import class_color_float
from yolo_cli.plots.style import GRAY, TEXT_COLOR, format_axes, name_text, new_figure, save, show_message

_MAX_COLORED = 7  # curves of classes; more colors are not distinct for color-blind people
_MAX_NUMBERED = 25
_MAX_NAMES = 120


def confusion_figure(confusion: Int[np.ndarray, "side side"], names: Sequence[str], out: Path) -> None:
    """The confusion matrix, normalized by true class: columns are true classes, rows predicted ones.

    The last row has missed ground truth. The last column has predictions of background, by predicted class.
    """
    total = confusion.sum(axis=0, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    side = len(confusion)
    inches = float(np.clip(3.5 + 0.5 * side, 6.5, 14))
    figure = new_figure(inches + 1.3, inches)
    axes = figure.subplots()
    # With colors instead of values, matplotlib looks up 6,600 of them for 80 classes, and not one per pixel.
    colors = ScalarMappable(Normalize(0, 1), "Blues")
    axes.imshow(colors.to_rgba(share, bytes=True), interpolation="nearest")
    bar = figure.colorbar(colors, ax=axes, shrink=0.7, label="fraction of the true class")
    bar.outline.set_visible(False)
    axes.set_title("Confusion matrix, normalized by true class", fontsize=12)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    if side <= _MAX_NAMES:
        font = float(np.clip(260 / side, 5.5, 10))
        labels = [*(name_text(name) for name in names), "background"]
        upright = sum(len(label) for label in labels) > 60
        axes.set_xticks(range(side), labels, fontsize=font, rotation=90 if upright else 0)
        axes.set_yticks(range(side), labels, fontsize=font)
    if side <= _MAX_NUMBERED:
        _numbers(axes, share, font=float(np.clip(130 / side, 6, 11)))
        axes.set_xticks(np.arange(side + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(side + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    if not confusion.any():
        show_message(axes, "no ground truth and no predictions")
    save(figure, out)


def _numbers(axes: Axes, share: Float[np.ndarray, "side side"], font: float) -> None:
    for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
        value = share[row, column]
        color = "white" if value > 0.65 else TEXT_COLOR
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=font, color=color)


def curve_figure(
    confidence: Float[np.ndarray, " samples"],
    values: Float[np.ndarray, "classes samples"],
    names: Sequence[str],
    out: Path,
    *,
    quantity: str,
) -> None:
    """Precision, recall or F1 (`quantity`) by confidence: thin lines per class, and the mean with its maximum.

    `names` are those of the rows. nan values are left out of the mean.
    """
    figure = new_figure(8, 5.5)
    axes = figure.subplots()
    format_axes(
        axes, title=f"{quantity} by confidence threshold, IoU 0.5", xlabel="confidence threshold", ylabel=quantity
    )
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    mean = np.divide(
        np.where(known, values, 0).sum(axis=0), count, out=np.full(len(confidence), np.nan), where=count > 0
    )
    if np.isnan(mean).all():
        label = ""
    else:
        best = int(np.nanargmax(mean))
        label = f"mean, maximum {mean[best]:.3f} at {confidence[best]:.3f}"
    _lines(axes, confidence, values, [name_text(name) for name in names], mean, label)
    save(figure, out)


def pr_figure(
    recall: Float[np.ndarray, " recalls"],
    precision: Float[np.ndarray, "classes recalls"],
    names: Sequence[str],
    out: Path,
) -> None:
    """Interpolated precision by recall at IoU 0.5; the area under a curve is the class's AP. `names` are of rows."""
    figure = new_figure(8, 5.5)
    axes = figure.subplots()
    format_axes(axes, title="Precision–recall curve, IoU 0.5", xlabel="recall", ylabel="precision")
    ap = precision.mean(axis=1)
    labels = [f"{name_text(name)}  {value:.3f}" for name, value in zip(names, ap, strict=True)]
    mean = precision.mean(axis=0) if len(ap) else np.full(len(recall), np.nan)
    _lines(axes, recall, precision, labels, mean, f"mAP@0.5  {ap.mean():.3f}" if len(ap) else "")
    save(figure, out)


def _lines(
    axes: Axes,
    x: Float[np.ndarray, " samples"],
    values: Float[np.ndarray, "classes samples"],
    labels: Sequence[str],
    mean: Float[np.ndarray, " samples"],
    mean_label: str,
) -> None:
    """Draw colored lines with names for a few classes, gray lines for many, and the mean."""
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if not mean_label:
        show_message(axes, "no ground truth" if not len(values) else "no predictions")
        return
    few = len(values) <= _MAX_COLORED
    for row, label in enumerate(labels):
        if few:
            axes.plot(x, values[row], color=class_color_float(row), linewidth=1.4, label=label)
        else:
            axes.plot(x, values[row], color=GRAY, linewidth=0.6)
    if len(values) > 1:
        axes.plot(x, mean, color="black", linewidth=2.8, label=mean_label)
    else:
        axes.plot([], [], " ", label=mean_label)
    if not few:
        axes.plot([], [], color=GRAY, linewidth=0.8, label=f"{len(values)} classes")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9, borderaxespad=0)
