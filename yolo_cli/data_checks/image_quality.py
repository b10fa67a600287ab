"""Images that are dark, blurred or uniform, and EXIF orientations that labels do not follow."""

import os

import numpy as np
from jaxtyping import Bool

from yolo_cli.data_checks.findings import WARNING, CheckedSplit, Finding, Item, Mark, View, count_of, listed
from yolo_cli.data_checks.image_stats import ImageStats

# Measured on coco128, cards and raccoon: none of 819 photographs is beyond a limit (lowest 77, 16 and 6.9), and of
# copies blurred by 1% of their longer side, 99% are.
DARK = 64.0  # 99th percentile of the luma
UNIFORM = 8.0  # standard deviation of the luma
BLACK = 2.0  # the same in a dark image
BLURRED = 5.0  # standard deviation of the Laplacian at 256 pixels

_MIN_TURN_EVIDENCE = 3.0  # standard errors
_FEW_TURNED = 5  # below, each image must show it by itself
_CLEAR_RATIO = 3.0


def check_image_quality(split: CheckedSplit) -> list[Finding]:
    """Findings about the pixels of the images of a split."""
    stats = split.stats
    if stats is None:
        return []
    dark = stats.decoded & (stats.brightness < DARK)
    uniform = stats.decoded & (stats.contrast < np.where(dark, BLACK, UNIFORM))
    dark &= ~uniform
    blurred = stats.decoded & (stats.sharpness < BLURRED) & ~uniform & ~dark
    kinds = (
        ("dark", dark, ("dark image", "dark images")),
        ("blurred", blurred, ("blurred image", "blurred images")),
        ("uniform", uniform, ("image without content", "images without content")),
    )
    findings = [_finding(split, code, marked, sentence) for code, marked, sentence in kinds if marked.any()]
    turned = ignores_orientation(stats)
    if turned.any():
        sentence = ("image whose labels ignore its EXIF orientation", "images whose labels ignore their orientation")
        findings.append(_finding(split, "exif-turn", turned, sentence, with_boxes=True))
    return findings


def ignores_orientation(stats: ImageStats) -> Bool[np.ndarray, " n"]:
    """Images whose boxes fit the stored pixels better than the displayed image.

    One image can mislead, so the images of a split decide together: a tool follows the orientation or it does not.
    """
    result = np.zeros(len(stats.decoded), dtype=bool)
    known = np.flatnonzero(np.isfinite(stats.turns).all(axis=1))
    if not len(known):
        return result
    as_labeled, turned = stats.turns[known].T.astype(np.float64) + 1
    evidence = np.log(turned / as_labeled)
    if len(known) < _FEW_TURNED:
        result[known] = evidence > np.log(_CLEAR_RATIO)
        return result
    spread = max(float(evidence.std()), 1e-6) / np.sqrt(len(evidence))
    if evidence.mean() > _MIN_TURN_EVIDENCE * spread:
        result[known] = evidence > 0
    return result


def _finding(
    split: CheckedSplit,
    code: str,
    marked: Bool[np.ndarray, " n"],
    sentence: tuple[str, str],
    *,
    with_boxes: bool = False,
) -> Finding:
    rows = np.flatnonzero(marked).tolist()
    items = listed(
        Item(os.fspath(split.index.path(row)), views=(View(split.name, row, _boxes(split, row) if with_boxes else ()),))
        for row in rows
    )
    return Finding(code, WARNING, split.name, len(rows), count_of(len(rows), *sentence), items)


def _boxes(split: CheckedSplit, row: int) -> tuple[Mark, ...]:
    height, width = split.index.sizes[row].tolist()
    return tuple(
        Mark(((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height))
        for _, cx, cy, w, h in split.index.labels(row).tolist()
    )
