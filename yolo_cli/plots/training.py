"""results.png: losses and metrics by epoch, from results.csv."""

import csv
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from yolo_cli.drawing import class_color_float
from yolo_cli.plots.style import format_axes, new_figure, save, show_message

_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Box loss", "loss", (("train/box_loss", "train"), ("val/box_loss", "val"))),
    ("", "loss", (("train/obj_loss", "train"), ("val/obj_loss", "val"))),
    ("Class loss", "loss", (("train/cls_loss", "train"), ("val/cls_loss", "val"))),
    ("Precision and recall", "at best F1", (("metrics/precision", "precision"), ("metrics/recall", "recall"))),
    ("Average precision", "mAP", (("metrics/mAP_0.5", "IoU 0.5"), ("metrics/mAP_0.5:0.95", "IoU 0.5:0.95"))),
    ("Learning rate", "learning rate", (("x/lr0", "weights"), ("x/lr1", "norms"), ("x/lr2", "biases"))),
    ("Moving average of the weights", "decay", (("x/ema_decay", "decay"),)),
    ("Augmentation", "probability", (("x/mosaic", "mosaic"),)),
)


def results_figure(results_csv: Path, out: Path, second_loss: str = "Objectness loss") -> None:
    """Plots by epoch: box, objectness and class losses, precision and recall, mAP, and what the schedule did.

    `second_loss` is the title of what the columns call `obj_loss`. Missing columns and cells without a number are left
    out. Raises OSError if the file cannot be read.
    """
    table = _read(results_csv)
    figure = new_figure(17, 7)
    for axes, (title, ylabel, columns) in zip(figure.subplots(2, 4).flat, _PANELS, strict=True):
        _panel(axes, table, columns)
        format_axes(axes, title=title or second_loss, xlabel="epoch", ylabel=ylabel)
        if ylabel in ("mAP", "at best F1", "decay", "probability"):
            axes.set_ylim(-0.02, 1.02)
        elif ylabel == "loss":
            axes.set_ylim(0, 1.02 * axes.get_ylim()[1])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    save(figure, out)


def _panel(axes: Axes, table: dict[str, list[float]], columns: tuple[tuple[str, str], ...]) -> None:
    epochs = table.get("epoch", [])
    # The first of three curves is wider, so that it remains visible if another one covers it.
    widths = (3.2, 1.8, 1.8) if len(columns) > 2 else (1.8, 1.8)
    drawn = False
    for i, (column, label) in enumerate(columns):
        values = table.get(column, [])
        if all(math.isnan(v) for v in values):
            continue
        marker = "o" if len(values) < 12 else None
        dash = "--" if i == 2 else "-"
        axes.plot(
            epochs,
            values,
            dash,
            color=class_color_float(i),
            marker=marker,
            markersize=4,
            linewidth=widths[i],
            label=label,
        )
        drawn = True
    if drawn:
        axes.legend(frameon=False, fontsize=9)
    else:
        show_message(axes, "no values")


def _read(path: Path) -> dict[str, list[float]]:
    """Columns by name; nan for cells without a finite number. The last line can be incomplete if a run was killed."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    names = [name for name in (rows[0] if rows else {}) if name is not None]
    return {name.strip(): [_number(row.get(name)) for row in rows] for name in names}


def _number(cell: str | None) -> float:
    try:
        value = float(cell or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
