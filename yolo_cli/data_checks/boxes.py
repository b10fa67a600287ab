"""Boxes that are probably mistakes: doubled, tiny, slivers, and those that cover the image."""

import os

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.data_checks.findings import WARNING, CheckedSplit, Finding, Item, Mark, View, count_of, listed
from yolo_cli.dataset.label_index import LabelIndex

DOUBLE_IOU = 0.95
TINY = 3.0  # pixels at --img; no network places such a box
SLIVER = 25.0  # ratio of the sides; longer than skis, lamp posts and trains in COCO
FULL = 0.99  # of the width and of the height of the image


def check_boxes(split: CheckedSplit, names: tuple[str, ...], img: tuple[int, int]) -> list[Finding]:
    """The findings about single boxes of a split; `img` is the (height, width) of training."""
    index = split.index
    pixels = boxes_in_pixels(index)
    image = image_of_boxes(index)
    height, width = index.sizes[image].T.astype(np.float64)
    gain = np.minimum(img[0] / height, img[1] / width)
    w, h = pixels[:, 2], pixels[:, 3]
    tiny = np.minimum(w, h) * gain < TINY
    sliver = (np.maximum(w, h) > SLIVER * np.minimum(w, h)) & ~tiny
    full = (w >= FULL * width) & (h >= FULL * height)
    side = f"{img[1]}×{img[0]}" if img[0] != img[1] else str(img[0])
    kinds = (
        ("tiny-box", tiny, f"under {TINY:.0f} pixels at --img {side}"),
        ("sliver", sliver, f"with sides of more than {SLIVER:.0f}:1"),
        ("full-box", full, "covering the whole image"),
    )
    findings = []
    for code, marked, where in kinds:
        rows = np.flatnonzero(marked)
        if len(rows):
            items = listed(_item(split, names, pixels, image, (row,)) for row in rows.tolist())
            what = f"{count_of(len(rows), 'box', 'boxes')} {where}"
            findings.append(Finding(code, WARNING, split.name, len(rows), what, items))
    pairs = double_boxes(index)
    if len(pairs):
        items = listed(_item(split, names, pixels, image, (a, b)) for a, b in pairs.tolist())
        what = f"{count_of(len(pairs), 'box', 'boxes')} on top of another one (IoU above {DOUBLE_IOU})"
        findings.insert(0, Finding("double-box", WARNING, split.name, len(pairs), what, items))
    return findings


def image_of_boxes(index: LabelIndex) -> Int[np.ndarray, " m"]:
    """The image of each box."""
    return np.repeat(np.arange(len(index)), np.diff(index.offsets))


def boxes_in_pixels(index: LabelIndex) -> Float[np.ndarray, "m 4"]:
    """Left, top, width, height of each box in pixels of the image file."""
    size = np.repeat(index.sizes[:, ::-1].astype(np.float64), np.diff(index.offsets), axis=0)
    boxes = index.boxes.astype(np.float64)
    return np.concatenate([(boxes[:, :2] - boxes[:, 2:] / 2) * size, boxes[:, 2:] * size], axis=1)


def double_boxes(index: LabelIndex) -> Int[np.ndarray, "p 2"]:
    """Pairs of boxes of an image with an IoU above DOUBLE_IOU: the first one of each, and a later one.

    Such boxes have nearly the same center, so each is compared with those that follow it in the order of the centers.
    """
    boxes, image = index.boxes.astype(np.float64), image_of_boxes(index)
    order = np.lexsort((boxes[:, 0], image))
    cx, w, of = boxes[order, 0], boxes[order, 2], image[order]
    near = 0.06 * w  # farther centers have a lower IoU
    found = []
    at, lag = np.arange(len(order)), 1
    while len(at):
        at = at[at + lag < len(order)]
        at = at[(of[at + lag] == of[at]) & (cx[at + lag] - cx[at] <= near[at])]
        a, b = order[at], order[at + lag]
        over = _iou(boxes[a], boxes[b]) > DOUBLE_IOU
        found.append(np.stack([np.minimum(a, b)[over], np.maximum(a, b)[over]], axis=1))
        lag += 1
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    _, first = np.unique(pairs[:, 1], return_index=True)  # of three boxes, two are doubles of the first
    return pairs[first]


def _iou(a: Float[np.ndarray, "p 4"], b: Float[np.ndarray, "p 4"]) -> Float[np.ndarray, " p"]:
    low = np.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    high = np.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    intersection = (high - low).clip(min=0).prod(axis=1)
    return intersection / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - intersection)


def _item(
    split: CheckedSplit,
    names: tuple[str, ...],
    pixels: Float[np.ndarray, "m 4"],
    image: Int[np.ndarray, " m"],
    rows: tuple[int, ...],
) -> Item:
    row = int(image[rows[-1]])
    marks = [_mark(pixels[i], names[split.index.classes[i]]) for i in rows]
    detail = " and ".join(f"{mark.label} {mark.box[2]:.0f}×{mark.box[3]:.0f}" for mark in marks)
    view = View(split.name, row, tuple(marks), zoom=True)
    return Item(os.fspath(split.index.path(row)), 0, detail, views=(view,))


def _mark(box: Float[np.ndarray, " 4"], name: str) -> Mark:
    left, top, width, height = (float(v) for v in box)
    return Mark((left, top, width, height), "wrong", name)
