"""check.html: the findings with thumbnails."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolo_cli.data_checks.dataset import CheckResult
from yolo_cli.data_checks.findings import (
    ERROR,
    EXPLANATIONS,
    WARNING,
    CheckedSplit,
    Explanation,
    Finding,
    Item,
    View,
)
from yolo_cli.dataset.images import decode_image
from yolo_cli.report.html import render_page
from yolo_cli.report.pictures import Overlay, Picture, around

MAX_CARDS = 24  # places with thumbnails per finding
MAX_LINES = 200  # places listed per finding; check.json has more
_SIDE = 150  # pixels


@dataclass(frozen=True)
class Card:
    """A place with its pictures."""

    pictures: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True)
class Section:
    """A finding as the page shows it."""

    finding: Finding
    explanation: Explanation
    cards: tuple[Card, ...]
    lines: tuple[str, ...]


class SplitImages:
    """The images of several splits, numbered one after the other."""

    def __init__(self, splits: Sequence[CheckedSplit]) -> None:
        self._splits = {split.name: split for split in splits}
        starts = np.cumsum([0, *(len(split.index) for split in splits)]).tolist()
        self._starts = dict(zip(self._splits, starts, strict=False))

    def number(self, split: str, row: int) -> int:
        return self._starts[split] + row

    def size_of(self, i: int) -> tuple[int, int]:
        split, row = self._place(i)
        height, width = split.index.sizes[row].tolist()
        return height, width

    def image(self, i: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        split, row = self._place(i)
        return decode_image(split.index.content(row), split.index.path(row), min_size)

    def _place(self, i: int) -> tuple[CheckedSplit, int]:
        name = next(name for name in reversed(self._starts) if self._starts[name] <= i)
        return self._splits[name], i - self._starts[name]


def render(result: CheckResult, splits: Sequence[CheckedSplit], *, title: str, root: Path) -> str:
    """The HTML of a check. Images that cannot be read are named on the page."""
    images = SplitImages(splits)
    sections = [_section(finding, images, root) for finding in result.findings]
    pictures = [picture for section in sections for card in section.cards for picture in card.pictures]
    context = {
        "title": title,
        "root": os.fspath(root),
        "pixels": all(split.stats is not None for split in splits),
        "splits": splits,
        "sections": sections,
        "errors": result.number(ERROR),
        "warnings": result.number(WARNING),
    }
    return render_page("check.html.j2", context, pictures, images)


def relative(item: Item, root: Path) -> str:
    """An item as one line, with paths relative to the dataset."""
    start = f"{root}{os.sep}"
    return str(item).replace(start, "")


def _section(finding: Finding, images: SplitImages, root: Path) -> Section:
    shown = [item for item in finding.items if item.views][:MAX_CARDS]
    cards = tuple(
        Card(tuple(_picture(view, relative(item, root), images) for view in item.views), relative(item, root))
        for item in shown
    )
    lines = tuple(relative(item, root) for item in finding.items[:MAX_LINES])
    return Section(finding, EXPLANATIONS[finding.code], cards, lines)


def _picture(view: View, caption: str, images: SplitImages) -> Picture:
    number = images.number(view.split, view.row)
    height, width = images.size_of(number)
    region = (0.0, 0.0, float(width), float(height))
    if view.zoom and view.marks:
        region = around([mark.box for mark in view.marks], (height, width))
    overlays = tuple(Overlay(*mark.box, mark.style, mark.label) for mark in view.marks)
    return Picture(number, region, _SIDE, caption, overlays)
