"""Speed against average precision, a dot a format."""

from collections.abc import Sequence
from pathlib import Path

from yolo_cli.plots.style import new_figure, plain, save, tidy

_INK = "#0072b2"


def draw_speed(out: Path, rows: Sequence[tuple[str, float, float]]) -> None:
    """benchmark.png from rows (name, milliseconds an image, mAP@0.5:0.95); up and to the left is better.

    Formats of equal precision lie on one line, so that names alternate above and below it.
    """
    figure = new_figure(9, 5)
    axes = figure.add_subplot()
    tidy(axes, title="Speed and precision by format", xlabel="ms an image, one by one", ylabel="mAP@0.5:0.95")
    for position, (name, milliseconds, precision) in enumerate(sorted(rows, key=lambda row: row[1])):
        axes.scatter([milliseconds], [precision], s=60, color=_INK, zorder=3)
        above = position % 2 == 0
        axes.annotate(
            plain(name),
            (milliseconds, precision),
            textcoords="offset points",
            xytext=(0, 10 + 14 * (position // 2 % 3) if above else -18 - 14 * (position // 2 % 3)),
            ha="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.8},
        )
    highest = max(precision for _, _, precision in rows)
    lowest = min(precision for _, _, precision in rows)
    margin = max(0.02, 0.3 * (highest - lowest))
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(0, 1.1 * max(milliseconds for _, milliseconds, _ in rows))
    save(figure, out)
