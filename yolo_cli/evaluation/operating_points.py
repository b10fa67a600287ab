"""Which confidence threshold to ship: chosen per class on evaluated images, with its uncertainty.

Thresholds are exclusive, as in `yolo detect`: a detection counts if its confidence is greater.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.config.thresholds import DEFAULT, SavedThresholds
from yolo_cli.evaluation.operating_data import GRID, OperatingCounts, OperatingData

# With fewer boxes, the best threshold of a class is mostly noise. Measured on coco128 with yolov5n, chosen on one split
# and applied to the other: mean F1 0.43 with a threshold for every class, 0.488 from 30 boxes on, 0.478 at 0.25.
MIN_BOXES = 30
RESAMPLES = 200
FOLDS = 5
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a threshold should achieve at IoU 0.5.

    The highest F-beta, (1 + β²) P R / (β² P + R) (van Rijsbergen, Information Retrieval, 1979), or with `min_precision`
    the highest recall at a precision of at least that.
    """

    beta: float = 1.0
    min_precision: float | None = None

    @property
    def label(self) -> str:
        """In words, such as `best F1`."""
        return f"best F{self.beta:g}" if self.min_precision is None else f"precision at least {self.min_precision:g}"


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision, recall and F-beta: means over the classes with ground truth; nan without ground truth."""

    precision: float
    recall: float
    f: float


@dataclass(frozen=True, slots=True)
class ClassThreshold:
    """The threshold of one class. Precision, recall and F-beta are those of the images that it was chosen on."""

    class_id: int
    name: str
    labels: int
    threshold: float
    low: float  # 95% of thresholds chosen on resampled images are from low to high; nan if `is_own` is False
    high: float
    is_own: bool  # False: too few boxes, so the overall threshold is used
    is_reached: bool  # False: no threshold has the wanted precision; this one has the highest
    precision: float
    recall: float
    f: float


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """Thresholds of all classes with ground truth, and what to expect of them on other images.

    `expected` has the rates with one threshold per class, with the overall one, and at 0.25. They are measured by
    cross-validation over images, on images that were not used to choose; empty where there are too few images.
    """

    criterion: str
    overall: float
    low: float
    high: float
    per_class: tuple[ClassThreshold, ...]
    expected: dict[str, Rates]

    def saved(self, classes: int, data: str) -> SavedThresholds:
        """What a weight file stores. Classes without ground truth get the overall threshold."""
        values = [self.overall] * classes
        for one in self.per_class:
            values[one.class_id] = one.threshold
        return SavedThresholds(self.overall, tuple(values), self.criterion, data)

    def to_dict(self) -> dict[str, Any]:
        """For results.json; None for nan."""
        content = asdict(self)
        content["per_class"] = [_known(one) for one in content["per_class"]]
        content["expected"] = {name: _known(rates) for name, rates in content["expected"].items()}
        return _known(content)


def choose_thresholds(
    data: OperatingData, names: Sequence[str], criterion: Criterion, *, seed: int = 0
) -> ThresholdChoice:
    """Choose thresholds that meet the criterion. Without ground truth the overall threshold is 0.25."""
    counts = data.counts()
    if not counts.labels.any():
        return ThresholdChoice(criterion.label, DEFAULT, math.nan, math.nan, (), {})
    own = counts.labels >= MIN_BOXES
    overall, best, reached = _choose(counts, criterion, own)
    low, high = _ranges(data, criterion, own, seed)
    rows = np.arange(data.classes)
    precision, recall, f = _rates(counts, best, criterion)
    per_class = tuple(
        ClassThreshold(
            c,
            names[c],
            int(counts.labels[c]),
            _value(int(best[c])),
            float(low[c]) if own[c] else math.nan,
            float(high[c]) if own[c] else math.nan,
            bool(own[c]),
            bool(reached[c]),
            float(precision[c]),
            float(recall[c]),
            float(f[c]),
        )
        for c in rows[counts.labels > 0].tolist()
    )
    expected = _cross_validated(data, criterion, seed)
    return ThresholdChoice(criterion.label, _value(overall), float(low[-1]), float(high[-1]), per_class, expected)


def rates_at(data: OperatingData, thresholds: Sequence[float], criterion: Criterion) -> Rates:
    """Rates of these images with given thresholds by class id, rounded to the grid."""
    index = np.abs(np.asarray(thresholds)[:, None] - GRID).argmin(1)
    counts = data.counts()
    return _mean_rates(counts, index, criterion)


def _choose(
    counts: OperatingCounts, criterion: Criterion, own: Bool[np.ndarray, " classes"]
) -> tuple[int, Int[np.ndarray, " classes"], Bool[np.ndarray, " classes"]]:
    """Positions in GRID: of the overall threshold, and by class; and whether the wanted precision is reached.

    Classes that are not `own` get the overall threshold.
    """
    predicted, correct, labels = counts.predicted, counts.correct, counts.labels
    if criterion.min_precision is None:
        f = _f_beta(predicted, correct, labels[:, None], criterion.beta)
        overall = int(_middle_of_best(f[labels > 0].mean(0)[None])[0]) if labels.any() else 0
        return overall, np.where(own, _middle_of_best(f), overall), np.ones(len(labels), dtype=bool)
    # Over all detections together: a mean over classes would leave out those without detections.
    wanted = criterion.min_precision
    (overall,), (overall_reached,) = _highest_recall(predicted.sum(0)[None], correct.sum(0)[None], wanted)
    best, reached = _highest_recall(predicted, correct, wanted)
    return int(overall), np.where(own, best, overall), np.where(own, reached, overall_reached)


def _highest_recall(
    predicted: Float[np.ndarray, "rows grid"], correct: Float[np.ndarray, "rows grid"], wanted: float
) -> tuple[Int[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """The lowest threshold with the wanted precision, or else that of the highest precision; and which it is."""
    precision = np.divide(correct, predicted, out=np.zeros(correct.shape), where=predicted > 0)
    reached = precision >= wanted
    return np.where(reached.any(1), reached.argmax(1), precision.argmax(1)), reached.any(1)


def _middle_of_best(values: Float[np.ndarray, "rows grid"]) -> Int[np.ndarray, " rows"]:
    """Per row the middle of the first run of maxima: farthest from the confidences at which the value falls."""
    is_best = values == values.max(1, keepdims=True)
    first = is_best.argmax(1)
    ended = ~is_best & (np.arange(values.shape[1]) > first[:, None])
    last = np.where(ended.any(1), ended.argmax(1), values.shape[1]) - 1
    return (first + last) // 2


def _f_beta(
    predicted: Float[np.ndarray, "*shape"],
    correct: Float[np.ndarray, "*shape"],
    labels: Float[np.ndarray, "..."],
    beta: float,
) -> Float[np.ndarray, "*shape"]:
    total = predicted + beta**2 * labels
    return np.divide((1 + beta**2) * correct, total, out=np.zeros(correct.shape), where=total > 0)


def _ranges(
    data: OperatingData, criterion: Criterion, own: Bool[np.ndarray, " classes"], seed: int
) -> tuple[Float[np.ndarray, " classes+1"], Float[np.ndarray, " classes+1"]]:
    """95% ranges of the thresholds (by class, the overall one last) that resampled images lead to."""
    random = np.random.default_rng(seed)
    chosen = []
    for _ in range(RESAMPLES):
        weights = np.bincount(random.integers(data.images, size=data.images), minlength=data.images)
        counts = data.counts(weights)
        if counts.labels.any():
            overall, best, _ = _choose(counts, criterion, own)
            chosen.append(np.append(np.where(own, GRID[best], np.nan), GRID[overall]))
    low, high = np.full(data.classes + 1, np.nan), np.full(data.classes + 1, np.nan)
    stacked = np.stack(chosen)
    known = ~np.isnan(stacked).all(0)
    low[known], high[known] = np.nanquantile(stacked[:, known], _INTERVAL, axis=0)
    return low, high


def _cross_validated(data: OperatingData, criterion: Criterion, seed: int) -> dict[str, Rates]:
    """Rates on images that were not used to choose; the counts of all folds are added up."""
    if data.images < 2 * FOLDS:
        return {}
    fold = np.random.default_rng(seed).permutation(data.images) % FOLDS
    rows = np.arange(data.classes)
    held: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"per class": [], "overall": [], f"{DEFAULT:g}": []}
    for number in range(FOLDS):
        chosen_on = data.counts((fold != number).astype(np.int64))
        if not chosen_on.labels.any():
            return {}
        overall, best, _ = _choose(chosen_on, criterion, chosen_on.labels >= MIN_BOXES)
        counts = data.counts((fold == number).astype(np.int64))
        same = np.zeros_like(rows)
        for parts, index in zip(held.values(), (best, same + overall, same + _default_index()), strict=True):
            parts.append((counts.predicted[rows, index], counts.correct[rows, index]))
    labels = data.counts().labels
    result = {}
    for name, parts in held.items():
        predicted, correct = (np.sum(part, axis=0)[:, None] for part in zip(*parts, strict=True))
        result[name] = _mean_rates(OperatingCounts(predicted, correct, labels), np.zeros_like(rows), criterion)
    return result


def _default_index() -> int:
    return int(np.abs(GRID - DEFAULT).argmin())


def _rates(
    counts: OperatingCounts, index: Int[np.ndarray, " classes"], criterion: Criterion
) -> tuple[Float[np.ndarray, " classes"], Float[np.ndarray, " classes"], Float[np.ndarray, " classes"]]:
    """Precision (0 without predictions), recall and F-beta by class at positions of the threshold axis."""
    rows = np.arange(len(index))
    predicted, correct, labels = counts.predicted[rows, index], counts.correct[rows, index], counts.labels
    precision = np.divide(correct, predicted, out=np.zeros(len(rows)), where=predicted > 0)
    recall = np.divide(correct, labels, out=np.zeros(len(rows)), where=labels > 0)
    return precision, recall, _f_beta(predicted, correct, labels, criterion.beta)


def _mean_rates(counts: OperatingCounts, index: Int[np.ndarray, " classes"], criterion: Criterion) -> Rates:
    present = counts.labels > 0
    if not present.any():
        return Rates(math.nan, math.nan, math.nan)
    precision, recall, f = (float(values[present].mean()) for values in _rates(counts, index, criterion))
    return Rates(precision, recall, f)


def _value(index: int) -> float:
    """The threshold at a position of GRID, without the noise of binary fractions."""
    return round(float(GRID[index]), 3)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
