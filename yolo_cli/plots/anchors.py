"""Distribution of box sizes, with anchors."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import FuncFormatter, LogLocator

from yolo_cli.plots.style import format_axes, new_figure, save

_CURRENT, _FITTED = "#0072b2", "#d55e00"


def anchor_figure(
    sizes: Float[np.ndarray, "m 2"], anchors: Float[np.ndarray, "n 2"], current: Float[np.ndarray, "k 2"], out: Path
) -> None:
    """Histogram of box widths and heights in pixels, with fitted anchors and the model's current ones."""
    figure = new_figure(8, 7)
    axes = figure.add_subplot()
    format_axes(
        axes,
        title=f"{len(sizes):,} box sizes and {len(anchors)} fitted anchors",
        xlabel="width in pixels",
        ylabel="height in pixels",
    )
    everything = np.concatenate((sizes, anchors, current))
    low, high = everything.min(0) / 1.15, everything.max(0) * 1.15
    edges = [np.geomspace(low[i], high[i], 61) for i in (0, 1)]
    count, _, _ = np.histogram2d(sizes[:, 1], sizes[:, 0], bins=(edges[1], edges[0]))
    shown = np.ma.masked_equal(np.sqrt(count), 0)  # the square root makes rare sizes visible
    axes.pcolormesh(edges[0], edges[1], shown, cmap="Greys", vmin=-0.3 * shown.max(), rasterized=True)
    axes.scatter(current[:, 0], current[:, 1], marker="x", s=55, linewidths=1.8, color=_CURRENT, label="current")
    axes.scatter(
        anchors[:, 0],
        anchors[:, 1],
        marker="o",
        s=60,
        edgecolors="white",
        linewidths=1.0,
        color=_FITTED,
        label="fitted",
    )
    axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.legend(frameon=False, loc="upper left")
    save(figure, out)
