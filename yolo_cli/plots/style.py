"""Common style of all figures. They are made without pyplot, which keeps global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

DPI = 150
GRAY = "0.72"
TEXT_COLOR = "0.15"


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches, with a layout in which texts do not overlap."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: Path) -> None:
    """Write the figure in the format of the file's suffix. Raises OSError if the file cannot be written."""
    # `savefig` draws everything twice, the first time for the layout only.
    figure.set(dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(out, dpi=(DPI, DPI), compress_level=3)


def text_inches(texts: Sequence[str], font: float) -> float:
    """The width of the widest of texts at a font size in points; 0 without texts."""
    figure = Figure(dpi=72)
    renderer = FigureCanvasAgg(figure).get_renderer()
    properties = FontProperties(size=font)
    widths = [renderer.get_text_width_height_descent(text, properties, ismath=False)[0] for text in texts]
    return max(widths, default=0.0) / 72


def name_text(name: str, max_length: int = 24) -> str:
    """A name for a figure: shortened, and with dollar signs escaped, which would start a formula."""
    short = name if len(name) <= max_length else name[: max_length - 1] + "…"
    return short.replace("$", r"\$")


def format_axes(axes: Axes, *, title: str, xlabel: str, ylabel: str) -> None:
    """Set title and axis labels, a light grid, and no border at the top and right."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def show_message(axes: Axes, text: str) -> None:
    """Show a text in axes without data."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.5", fontsize=12)
