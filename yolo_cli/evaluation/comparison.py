"""Is one model better than another on these images? A paired bootstrap over images, and over seeds.

Every model is scored on the same resamples, so that images which are hard for all models cancel in the difference
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Where a recipe was trained with several seeds, its runs
are resampled, too: a difference then means the recipe, not one lucky run.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from yolo_cli.evaluation.weighted_ap import AREAS, WeightedAP

CONFIDENCE = 0.95
POWER = 0.8  # probability with which `images_needed` would show a difference of the size seen
SUMMARY = ("mAP_0.5:0.95", "mAP_0.5", *(f"mAP_{name}" for name in list(AREAS)[1:]))


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of one recipe, 0 … 1: mean over its runs, and standard error over images (and seeds)."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of a recipe minus that of the base, with its 95% interval. nan where no box tells."""

    value: float
    low: float
    high: float
    standard_error: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def images_needed(self, images: int) -> int | None:
        """How many images in all would show a difference of this size; None where it is 0 or unknown.

        The standard error falls with the root of the number of images.
        """
        normal = NormalDist()
        needed = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER)
        if not self.value or not np.isfinite([self.value, self.standard_error]).all():
            return None
        return ceil(images * (needed * self.standard_error / abs(self.value)) ** 2)


@dataclass(frozen=True, slots=True)
class Compared:
    """One recipe: its scores, and its differences to the base (of the base itself: none). Keys are `SUMMARY` names."""

    scores: dict[str, Score]
    differences: dict[str, Difference]
    class_scores: tuple[Score, ...]  # mAP@0.5:0.95 by class
    class_differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Bootstrap:
    """Metrics of recipes on the images themselves and on resamples of them; nan where no box tells.

    The metrics are those of `SUMMARY`, then mAP@0.5:0.95 of every class.
    """

    images: int
    values: Float[np.ndarray, "recipes metrics"]
    samples: Float[np.ndarray, "recipes resamples metrics"]


def bootstrap(
    recipes: Sequence[Sequence[WeightedAP]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Bootstrap:
    """Score recipes, each with one or several runs, on the same resamples of the images (and of their runs).

    `advance` is called once per resample. A single image has no resamples but itself, so its samples are nan.
    Raises ValueError where the runs were not scored on the same images.
    """
    images = {run.images for runs in recipes for run in runs}
    if len(images) != 1 or not all(recipes):
        raise ValueError("the runs were scored on different images")
    count = images.pop()
    point = [np.stack([_summary(run(np.ones(count, dtype=np.int64))) for run in runs]) for runs in recipes]

    def resample(number: int) -> list[Float[np.ndarray, " metrics"]]:
        random = np.random.default_rng([seed, number])
        weights = np.bincount(random.integers(count, size=count), minlength=count)
        drawn = []
        for runs in recipes:
            chosen = np.bincount(random.integers(len(runs), size=len(runs)), minlength=len(runs))
            scores = [times * _summary(run(weights)) for run, times in zip(runs, chosen.tolist(), strict=True) if times]
            drawn.append(np.sum(scores, axis=0) / len(runs))
        advance()
        return drawn

    with ThreadPoolExecutor(threads) as pool:
        samples = np.stack([np.stack(drawn) for drawn in pool.map(resample, range(resamples))], axis=1)
    if count == 1:
        samples[:] = np.nan
    return Bootstrap(count, np.stack([runs.mean(axis=0) for runs in point]), samples)


def compare(result: Bootstrap) -> list[Compared]:
    """Scores of each recipe and its differences to the first."""
    return [
        _compared(value, sample, result.values[0], result.samples[0], base=i == 0)
        for i, (value, sample) in enumerate(zip(result.values, result.samples, strict=True))
    ]


def _summary(ap: Float[np.ndarray, "4 10 classes"]) -> Float[np.ndarray, " metrics"]:
    """The metrics of `SUMMARY`, then mAP@0.5:0.95 of every class; nan where no box tells."""
    return np.array(
        [_mean(ap[0]), _mean(ap[0, 0]), *(_mean(area) for area in ap[1:]), *ap[0].mean(axis=0)], dtype=np.float64
    )


def _mean(values: Float[np.ndarray, "..."]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _compared(
    value: Float[np.ndarray, " metrics"],
    samples: Float[np.ndarray, "resamples metrics"],
    base_value: Float[np.ndarray, " metrics"],
    base_samples: Float[np.ndarray, "resamples metrics"],
    *,
    base: bool,
) -> Compared:
    scores = [Score(float(v), _deviation(s)) for v, s in zip(value, samples.T, strict=True)]
    differences = [difference(float(v), s) for v, s in zip(value - base_value, (samples - base_samples).T, strict=True)]
    split = len(SUMMARY)
    return Compared(
        dict(zip(SUMMARY, scores[:split], strict=True)),
        {} if base else dict(zip(SUMMARY, differences[:split], strict=True)),
        tuple(scores[split:]),
        () if base else tuple(differences[split:]),
    )


def difference(value: float, samples: Float[np.ndarray, " resamples"]) -> Difference:
    """A difference of that value and its interval, from differences on resamples.

    The interval has the width of the resamples' and the place of the difference itself.

    A resample repeats images, on which AP is a little higher than on new ones; the shift is not part of the interval.
    """
    known = samples[np.isfinite(samples)]
    if not np.isfinite(value) or not len(known):
        return Difference(value, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known - known.mean(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(value, value + float(low), value + float(high), _deviation(known))


def verdict(name: str, base: str, difference: Difference, images: int) -> str:
    """The comparison of a model with the base, on this number of images, in one sentence."""
    points = f"{100 * abs(difference.value):.1f} AP"
    if difference.is_shown:
        word, low, high = ("better", difference.low, difference.high)
        if difference.value < 0:
            word, low, high = ("worse", -difference.high, -difference.low)
        return f"{name} is {word} than {base} by {points} (95%: {100 * low:.1f} to {100 * high:.1f})"
    needed = difference.images_needed(images)
    if math.isnan(difference.low):
        return f"no difference between {name} and {base} can be shown: too few images have boxes"
    more = f"; about {_rounded(max(needed - images, 1)):,} more images would be needed" if needed else ""
    return f"no difference between {name} and {base} can be shown ({interval_text(difference)} AP){more}"


def _rounded(number: int) -> int:
    """To two digits: an estimate is no better."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step


def interval_text(difference: Difference) -> str:
    """A difference and its interval in points of AP."""
    if math.isnan(difference.value):
        return "unknown"
    if math.isnan(difference.low):
        return f"{100 * difference.value:+.1f} (interval unknown)"
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def _deviation(samples: Float[np.ndarray, " resamples"]) -> float:
    known = samples[np.isfinite(samples)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
