"""labels.jpg: statistics of a dataset's labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from yolo_cli.drawing import class_color_float
from yolo_cli.plots.style import format_axes, name_text, new_figure, save, show_message

_MAX_NAMES = 120
_MAX_BOXES = 400


def label_figure(
    classes: Int[np.ndarray, " n"], boxes: Float[np.ndarray, "n 4"], names: Sequence[str], out: Path
) -> None:
    """Labels per class, distributions of box centers and sizes, and a sample of boxes.

    `boxes` are cx, cy, w, h as fractions of the image.
    """
    figure = new_figure(13, 8)
    top, bottom = figure.subfigures(2, 1, squeeze=False).flat
    _histogram(top.subplots(), classes, names)
    center, size, sample = bottom.subplots(1, 3)
    _density(center, boxes[:, 0], boxes[:, 1], title="Box centers", xlabel="x / image width", ylabel="y / image height")
    center.invert_yaxis()
    _density(size, boxes[:, 2], boxes[:, 3], title="Box sizes", xlabel="w / image width", ylabel="h / image height")
    _sample(sample, classes, boxes)
    save(figure, out)


def _histogram(axes: Axes, classes: Int[np.ndarray, " n"], names: Sequence[str]) -> None:
    counts = np.bincount(classes, minlength=len(names))
    class_ids = np.arange(len(counts))
    bars = axes.bar(class_ids, counts, width=0.85, color=[class_color_float(int(i)) for i in class_ids])
    format_axes(
        axes,
        title=f"{len(classes):,} labels of {len(names)} class{'es' * (len(names) != 1)}",
        xlabel="",
        ylabel="labels",
    )
    axes.grid(False, axis="x")
    axes.set_xlim(-0.7, max(len(counts), 1) - 0.3)
    if not len(classes):
        axes.set_ylim(0, 1)
    if len(names) > _MAX_NAMES:
        axes.set_xlabel("class")
        return
    fits = sum(len(name) for name in names) < 100
    axes.set_xticks(
        class_ids, [name_text(name) for name in names], rotation=0 if fits else 90, fontsize=9 if fits else 7
    )
    if len(names) <= 20:
        axes.bar_label(bars, fontsize=9, padding=2)
        axes.margins(y=0.12)


def _density(
    axes: Axes, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, title: str, xlabel: str, ylabel: str
) -> None:
    format_axes(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(False)
    if not len(x):
        show_message(axes, "no labels")
        return
    bins = 25 if len(x) < 2000 else 50
    # The square root makes rare values visible next to frequent ones; empty bins stay white.
    count, _, _ = np.histogram2d(y, x, bins=bins, range=((0, 1), (0, 1)))
    shown = np.ma.masked_equal(np.sqrt(count), 0)
    axes.imshow(shown, origin="lower", extent=(0, 1, 0, 1), cmap="viridis_r", interpolation="nearest", aspect="equal")


def _sample(axes: Axes, classes: Int[np.ndarray, " n"], boxes: Float[np.ndarray, "n 4"]) -> None:
    # Evenly over the dataset, because its first labels can be of one scene.
    at = np.linspace(0, len(boxes) - 1, min(len(boxes), _MAX_BOXES)).astype(np.int64)
    shown = f"{len(at)} of {len(boxes):,} boxes" if len(at) < len(boxes) else "All boxes"
    format_axes(axes, title=f"{shown}, with a common center", xlabel="w / image width", ylabel="h / image height")
    axes.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), aspect="equal")
    axes.grid(False)
    if not len(at):
        show_message(axes, "no labels")
        return
    outlines = [Rectangle((-w / 2, -h / 2), w, h) for _, _, w, h in boxes[at]]
    colors = [class_color_float(int(c)) for c in classes[at]]
    axes.add_collection(PatchCollection(outlines, facecolor="none", edgecolor=colors, linewidth=0.6, alpha=0.6))
