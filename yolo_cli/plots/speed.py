"""Inference time and average precision of exported formats."""

from collections.abc import Sequence
from pathlib import Path

from yolo_cli.plots.style import format_axes, name_text, new_figure, save

_COLOR = "#0072b2"


def speed_figure(rows: Sequence[tuple[str, float, float]], out: Path) -> None:
    """Scatter plot of rows (format, milliseconds per image, mAP@0.5:0.95).

    Formats often have the same mAP, so their names alternate above and below the points.
    """
    figure = new_figure(9, 5)
    axes = figure.add_subplot()
    xlabel = "milliseconds per image (batch size 1)"
    format_axes(axes, title="Inference time and mAP by format", xlabel=xlabel, ylabel="mAP@0.5:0.95")
    for position, (name, milliseconds, map50_95) in enumerate(sorted(rows, key=lambda row: row[1])):
        axes.scatter([milliseconds], [map50_95], s=60, color=_COLOR, zorder=3)
        above = position % 2 == 0
        axes.annotate(
            name_text(name),
            (milliseconds, map50_95),
            textcoords="offset points",
            xytext=(0, 10 + 14 * (position // 2 % 3) if above else -18 - 14 * (position // 2 % 3)),
            ha="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.8},
        )
    highest = max(map50_95 for _, _, map50_95 in rows)
    lowest = min(map50_95 for _, _, map50_95 in rows)
    margin = max(0.02, 0.3 * (highest - lowest))
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(0, 1.1 * max(milliseconds for _, milliseconds, _ in rows))
    save(figure, out)
