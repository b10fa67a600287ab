"""Options of a training that the sizes of boxes and images suggest."""

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.score import drop_tiny, score, training_sizes
from yolo_cli.data_checks.findings import ADVICE, CheckedSplit, Finding
from yolo_cli.data_checks.training_cost import TrainingCost
from yolo_cli.dataset.label_index import LabelIndex

SMALL = 8.0  # pixels of the shorter side, the smallest stride; smaller boxes are hard to find
MOST = 0.9  # fraction of the boxes that should not be smaller
SIZES = (320, 416, 512, 640, 768, 960, 1280, 1536)  # suggested values of --img
MIN_RECALL = 0.98  # best possible recall below which a training refits anchors
BATCH = 16

_MIN_PADDING = 0.2  # fraction of a square batch, above which --rect is suggested
_MIN_TILE_GAIN = 1.5  # of the resolution


def advise(
    train: CheckedSplit, img: tuple[int, int], anchors: Float[np.ndarray, "n 2"], cost: TrainingCost | None
) -> list[Finding]:
    """Advice for a training on this split at `img` (height, width), with a model that has these anchors (pixels)."""
    index = train.index
    if not len(index.boxes):
        return []
    lines = {
        "img": _image_size(index, img),
        "tile": _tile(index, img),
        "anchors": _anchors(index, img, anchors),
        "rect": _rect(index),
        "cost": _cost(len(index), img, cost) if cost else "",
    }
    return [Finding(code, ADVICE, train.name, 1, line) for code, line in lines.items() if line]


def _image_size(index: LabelIndex, img: tuple[int, int]) -> str:
    """The smallest size that leaves most boxes with enough pixels, but not larger than the images are."""
    native = float(np.median(index.sizes.max(axis=1)))
    useful = [size for size in SIZES if size <= native] or [SIZES[0]]
    fitting = [size for size in useful if _large_enough(index, (size, size)) >= MOST]
    best = fitting[0] if fitting else useful[-1]
    line = f"--img {best}: {_percent(_large_enough(index, (best, best)))} of the boxes have {SMALL:.0f} pixels or more"
    if best == max(img):
        return line
    return f"{line} on the shorter side; {_percent(_large_enough(index, img))} at {_side(img)}"


def _tile(index: LabelIndex, img: tuple[int, int]) -> str:
    """Tiles, where the images have far more pixels than --img and the boxes need them."""
    gain = np.maximum(1 / _gains(index, img), 1)
    if np.median(gain) < _MIN_TILE_GAIN or _large_enough(index, img) >= MOST:
        return ""
    native = _shorter_sides(index, np.ones(len(index)))
    share = float((native >= SMALL).mean())
    if share <= _large_enough(index, img) + 0.05:
        return ""
    return (
        f"--tile {max(img)} with yolo train, val and detect: the images have {np.median(gain):.1f} times the "
        f"resolution of --img, at which {_percent(share)} of the boxes have {SMALL:.0f} pixels or more"
    )


def _anchors(index: LabelIndex, img: tuple[int, int], anchors: Float[np.ndarray, "n 2"]) -> str:
    recall = score(drop_tiny(training_sizes(index, img)), anchors, 4.0).best_possible_recall
    if recall >= MIN_RECALL:
        return f"the default anchors of YOLOv5 match {_percent(recall)} of the boxes: nothing to do"
    return (
        f"the default anchors of YOLOv5 match only {_percent(recall)} of the boxes: training refits them, or use a "
        "model without anchors such as yolox-nano"
    )


def _rect(index: LabelIndex) -> str:
    padding = 1 - float((index.sizes.min(axis=1) / index.sizes.max(axis=1)).mean())
    if padding < _MIN_PADDING:
        return ""
    return f"--rect saves {_percent(padding)} of the pixels of square batches, which are padding; it excludes mosaic"


def _cost(images: int, img: tuple[int, int], cost: TrainingCost) -> str:
    seconds = cost.seconds_per_image * images
    memory = (cost.fixed_bytes + BATCH * cost.bytes_per_image) / 2**30
    return (
        f"{cost.model} at {_side(img)} on {cost.device}: about {_duration(seconds)} per epoch, "
        f"{_duration(100 * seconds)} for 100, and {memory:.1f} GiB of memory at --batch {BATCH}"
    )


def _gains(index: LabelIndex, img: tuple[int, int]) -> Float[np.ndarray, " n"]:
    return (np.array(img) / index.sizes.astype(np.float64)).min(axis=1)


def _shorter_sides(index: LabelIndex, gain: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Pixels of the shorter side of each box, the images scaled by `gain`."""
    size = index.sizes[:, ::-1].astype(np.float64) * gain[:, None]
    return (np.repeat(size, np.diff(index.offsets), axis=0) * index.boxes[:, 2:]).min(axis=1)


def _large_enough(index: LabelIndex, img: tuple[int, int]) -> float:
    return float((_shorter_sides(index, _gains(index, img)) >= SMALL).mean())


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _side(img: tuple[int, int]) -> str:
    return str(img[0]) if img[0] == img[1] else f"{img[1]}×{img[0]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
