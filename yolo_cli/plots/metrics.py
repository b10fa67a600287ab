"""Confusion matrix, and the precision, recall, F1 and PR curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from yolo_cli.drawing import class_color_float
from yolo_cli.plots.style import GRAY, TEXT_COLOR, format_axes, name_text, new_figure, save, show_message, text_inches

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
    font = float(np.clip(260 / side, 5.5, 10))
    labels = [*(name_text(name) for name in names), "background"] if side <= _MAX_NAMES else []
    width = text_inches(labels, font) + 0.06
    inches = float(np.clip(2.0 + 0.5 * side, 5.0, 12.5))
    upright = width > inches / side
    left, bottom = 0.4 + width, 0.4 + (width if upright else 2 * font / 72)
    figure, axes, beside = _square_axes(left, bottom, inches)
    # With colors instead of values, matplotlib looks up 6,600 of them for 80 classes, and not one per pixel.
    colors = ScalarMappable(Normalize(0, 1), "Blues")
    axes.imshow(colors.to_rgba(share, bytes=True), interpolation="nearest")
    bar = figure.colorbar(colors, cax=beside, label="fraction of the true class")
    bar.outline.set_visible(False)
    axes.set_title("Confusion matrix, normalized by true class", fontsize=12)
    axes.set_xticks([])
    axes.set_yticks([])
    _name_rows_and_columns(axes, labels, font, gap=0.04 / inches, upright=upright)
    if side <= _MAX_NUMBERED:
        _numbers(axes, share, font=float(np.clip(130 / side, 6, 11)))
        for edge in np.arange(side - 1) + 0.5:
            axes.axhline(edge, color="0.9", linewidth=0.8)
            axes.axvline(edge, color="0.9", linewidth=0.8)
    if not confusion.any():
        show_message(axes, "no ground truth and no predictions")
    save(figure, out)


def _square_axes(left: float, bottom: float, side: float) -> tuple[Figure, Axes, Axes]:
    """A figure with square axes of `side` inches, `left` and `bottom` of space for names, and axes for a color bar.

    Constrained layout, which draws all names several times, takes half as long again for 80 classes.
    """
    width, height = left + side + 1.3, bottom + side + 0.5
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    color_bar = ((left + side + 0.2) / width, (bottom + 0.15 * side) / height, 0.2 / width, 0.7 * side / height)
    figure.text((left + side / 2) / width, 0.2 / height, "true", ha="center", va="center")
    figure.text(0.2 / width, (bottom + side / 2) / height, "predicted", ha="center", va="center", rotation=90)
    return figure, axes, figure.add_axes(color_bar)


def _name_rows_and_columns(axes: Axes, labels: Sequence[str], font: float, *, gap: float, upright: bool) -> None:
    # Plain texts take half the time of tick labels, which are several objects each.
    turn, along_x, along_y = 90 if upright else 0, axes.get_xaxis_transform(), axes.get_yaxis_transform()
    for i, label in enumerate(labels):
        axes.text(i, -gap, label, transform=along_x, fontsize=font, rotation=turn, ha="center", va="top")
        axes.text(-gap, i, label, transform=along_y, fontsize=font, ha="right", va="center")


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
