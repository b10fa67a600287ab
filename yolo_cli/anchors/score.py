"""How well anchors suit boxes, as the trainer matches them: by the ratio of sides."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from yolo_cli.dataset.labels import LabelIndex

MIN_SIDE = 2.0  # pixels; what is smaller at training scale cannot be learnt, and would draw anchors to itself
_CHUNK = 100_000  # boxes at a time, which bounds the memory of a large data set


@dataclass(frozen=True, slots=True)
class AnchorScore:
    """`fitness` is the mean, over boxes, of the best ratio where it counts as a match (else 0)."""

    fitness: float
    best_possible_recall: float  # share of boxes that some anchor matches
    anchors_above_threshold: float  # mean number of anchors that match a box


def training_sizes(index: LabelIndex, img: tuple[int, int]) -> Float[np.ndarray, "m 2"]:
    """Width and height of every box in pixels, once its image is letterboxed to `img` (height, width)."""
    height, width = index.sizes[:, 0].astype(np.float64), index.sizes[:, 1].astype(np.float64)
    gain = np.minimum(img[0] / height, img[1] / width)
    per_image = np.stack((width * gain, height * gain), 1)
    return np.repeat(per_image, np.diff(index.offsets), axis=0) * index.boxes[:, 2:].astype(np.float64)


def learnable(sizes: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "k 2"]:
    """The sizes of at least MIN_SIDE on some side; all of them where that would leave none."""
    large = sizes[(sizes >= MIN_SIDE).any(1)]
    return large if len(large) else sizes


def score(sizes: Float[np.ndarray, "m 2"], anchors: Float[np.ndarray, "n 2"], thr: float) -> AnchorScore:
    """Score anchors on boxes, both as width and height in pixels.

    The ratio of a box to an anchor is min(w/W, W/w, h/H, H/h); it is a match above 1/thr.
    """
    if not len(sizes):
        return AnchorScore(0.0, 0.0, 0.0)
    best_sum = matched = above = 0.0
    logs = np.log(anchors)
    for start in range(0, len(sizes), _CHUNK):
        # the smallest of the four ratios is e to minus the largest difference of logarithms
        away = np.abs(np.log(sizes[start : start + _CHUNK])[:, None] - logs).max(2)
        nearest = away.min(1)
        hit = nearest < np.log(thr)
        best_sum += np.exp(-nearest[hit]).sum()
        matched += hit.sum()
        above += (away < np.log(thr)).sum()
    count = len(sizes)
    return AnchorScore(float(best_sum / count), float(matched / count), float(above / count))
