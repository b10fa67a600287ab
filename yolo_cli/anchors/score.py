"""The fitness of anchors for boxes, by the side ratio that the loss matches them with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from yolo_cli.dataset.label_index import LabelIndex

MIN_SIDE = 2.0  # pixels; smaller boxes cannot be learned, and would attract anchors
_CHUNK = 100_000  # boxes at a time, to bound memory


@dataclass(frozen=True, slots=True)
class AnchorScore:
    """How well anchors match boxes."""

    fitness: float  # mean over the boxes of the best ratio, 0 for boxes that no anchor matches
    best_possible_recall: float  # fraction of boxes that an anchor matches
    anchors_above_threshold: float  # mean number of anchors that match a box


def training_sizes(index: LabelIndex, img: tuple[int, int]) -> Float[np.ndarray, "m 2"]:
    """Width and height of each box in pixels, after letterboxing of its image to `img` (height, width)."""
    height, width = index.sizes[:, 0].astype(np.float64), index.sizes[:, 1].astype(np.float64)
    gain = np.minimum(img[0] / height, img[1] / width)
    per_image = np.stack((width * gain, height * gain), 1)
    return np.repeat(per_image, np.diff(index.offsets), axis=0) * index.boxes[:, 2:].astype(np.float64)


def drop_tiny(sizes: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "k 2"]:
    """The sizes with a side of at least MIN_SIDE; all sizes if there is none."""
    large = sizes[(sizes >= MIN_SIDE).any(1)]
    return large if len(large) else sizes


def score(sizes: Float[np.ndarray, "m 2"], anchors: Float[np.ndarray, "n 2"], thr: float) -> AnchorScore:
    """Score anchors on boxes, both as width and height in pixels.

    The ratio of a box and an anchor is min(w/W, W/w, h/H, H/h). They match if it is greater than 1/thr.
    """
    if not len(sizes):
        return AnchorScore(0.0, 0.0, 0.0)
    best_sum = matched = above = 0.0
    logs = np.log(anchors)
    for start in range(0, len(sizes), _CHUNK):
        # the smallest of the four ratios is e^(−distance)
        distance = np.abs(np.log(sizes[start : start + _CHUNK])[:, None] - logs).max(2)
        nearest = distance.min(1)
        hit = nearest < np.log(thr)
        best_sum += np.exp(-nearest[hit]).sum()
        matched += hit.sum()
        above += (distance < np.log(thr)).sum()
    count = len(sizes)
    return AnchorScore(float(best_sum / count), float(matched / count), float(above / count))
