"""What all figures share. Figures are made without pyplot, which would keep them, and a back end, for the process."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 150
GRAY = "0.72"
INK = "0.15"


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches that keeps its texts apart."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: Path) -> None:
    """Write the figure in the format of the file's suffix. Raises `OSError` where that is not possible."""
    figure.savefig(out, dpi=DPI, facecolor="white")


def plain(text: str, longest: int = 24) -> str:
    """A name to put on a figure: a dollar sign would begin a formula, and a long name push everything aside."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short.replace("$", r"\$")


def tidy(axes: Axes, *, title: str, xlabel: str, ylabel: str) -> None:
    """Title, axis labels, a faint grid, no box around."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def say(axes: Axes, text: str) -> None:
    """A word where there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.5", fontsize=12)
