"""Fitting of anchors to box sizes: k-means, then a direct search that maximizes the fitness.

In logarithms of width and height, the ratio of a box and an anchor is e^(−d), with d their L∞ distance. So anchors are
cluster centers, and the fitness is the mean of e^(−d) to the nearest center, 0 for d ≥ ln thr. Boxes are represented
by sorted distinct points with weights, so the result does not depend on the order of the boxes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.errors import UserError

_STARTS = 12  # k-means runs
_REFINED = 3  # of them, the best ones are refined
_LLOYD_STEPS = 20
_MAX_POINTS = 4096  # more distinct sizes than this are binned
_CELLS = (0.04, 0.015)  # bin width in logarithms: in the search, in the last refinement
_DIRECTIONS = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y], np.float64)
_FIRST_STEP, _LAST_STEP = 0.2, 0.0005


@dataclass(frozen=True, slots=True)
class _Points:
    """Logarithms of distinct box sizes, with the fraction of boxes of each size."""

    at: Float[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]

    def distances(self, centers: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n m"]:
        """L∞ distance of each center to each point."""
        return np.maximum(np.abs(centers[:, :1] - self.at[:, 0]), np.abs(centers[:, 1:] - self.at[:, 1]))


def fit_anchors(
    sizes: Float[np.ndarray, "m 2"], n: int, *, thr: float, seed: int = 0, generations: int = 60
) -> Float[np.ndarray, "n 2"]:
    """Fit n anchors to boxes.

    Args:
        sizes: width and height of the boxes in pixels, in any order.
        n: number of anchors.
        thr: threshold of the side ratio.
        seed: seed of the search; the result is reproducible.
        generations: number of attempts to leave a local optimum.

    Returns:
        Exactly n anchors: width, height in pixels, sorted by area.

    Raises:
        UserError: there are no boxes.
    """
    if not len(sizes):
        raise UserError("no boxes to fit anchors to", fix="use a split with labels")
    random = np.random.default_rng(seed)
    limit = float(np.log(thr))
    points = _points(sizes, _CELLS[0])
    starts = [_k_means(points, n, random) for _ in range(_STARTS)]
    starts.sort(key=lambda centers: -_fitness(points, centers, limit))
    refined = [_refine(points, centers, limit, _FIRST_STEP, _LAST_STEP * 8) for centers in starts[:_REFINED]]
    best = max(refined, key=lambda centers: _fitness(points, centers, limit))
    best = _escape(points, best, limit, random, generations)
    best = _refine(_points(sizes, _CELLS[1]), best, limit, _FIRST_STEP / 8, _LAST_STEP)
    anchors = np.exp(best)
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(1)))]


def _points(sizes: Float[np.ndarray, "m 2"], cell: float) -> _Points:
    """Distinct sizes, or the means of square bins if there are many."""
    logs = np.log(sizes)
    logs = logs[np.lexsort((logs[:, 1], logs[:, 0]))]  # sorted, so that sums do not depend on the order of boxes
    distinct, counts = np.unique(logs, axis=0, return_counts=True) if len(logs) <= _MAX_POINTS * 4 else (logs, None)
    if counts is None or len(distinct) > _MAX_POINTS:
        grid = np.floor((logs - logs.min(0)) / cell).astype(np.int64)
        _, owner, counts = np.unique(
            grid[:, 0] * (grid[:, 1].max() + 1) + grid[:, 1], return_inverse=True, return_counts=True
        )
        distinct = np.stack([np.bincount(owner, logs[:, i]) / counts for i in (0, 1)], 1)
    return _Points(distinct, counts / counts.sum())


def _fitness(points: _Points, centers: Float[np.ndarray, "n 2"], limit: float) -> float:
    return float(_value(points.distances(centers).min(0)[None], points, limit)[0])


def _value(nearest: Float[np.ndarray, "k m"], points: _Points, limit: float) -> Float[np.ndarray, " k"]:
    """Fitness of k alternatives, each given by the distances of the points to their nearest centers."""
    return np.where(nearest < limit, np.exp(-nearest), 0.0) @ points.weight


def _k_means(points: _Points, n: int, random: np.random.Generator) -> Float[np.ndarray, "n 2"]:
    """k-means with k-means++ initialization (Arthur & Vassilvitskii 2007) and L∞ distances."""
    centers = points.at[random.choice(len(points.at), 1, p=points.weight)]
    for k in range(1, n):
        chance = points.distances(centers).min(0) ** 2 * points.weight
        if chance.sum() > 0:
            new = points.at[random.choice(len(points.at), p=chance / chance.sum())]
        else:  # fewer distinct sizes than anchors: place the others around them
            new = centers[k % len(points.at)] + random.normal(0, 0.3, 2)
        centers = np.concatenate((centers, new[None]))
    for _ in range(_LLOYD_STEPS):
        owner = points.distances(centers).argmin(0)
        moved = np.stack([_center(points, owner == k, centers[k]) for k in range(n)])
        if np.allclose(moved, centers, atol=1e-6):
            break
        centers = moved
    return centers


def _center(points: _Points, mine: np.ndarray, otherwise: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 2"]:
    """The weighted L∞ median: the medians of the rotated coordinates x + y and x − y."""
    if not mine.any():
        return otherwise
    at, weight = points.at[mine], points.weight[mine]
    u, v = _median(at[:, 0] + at[:, 1], weight), _median(at[:, 0] - at[:, 1], weight)
    return np.array(((u + v) / 2, (u - v) / 2))


def _median(values: Float[np.ndarray, " k"], weight: Float[np.ndarray, " k"]) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _refine(
    points: _Points, centers: Float[np.ndarray, "n 2"], limit: float, step: float, last: float
) -> Float[np.ndarray, "n 2"]:
    """Compass search (Hooke & Jeeves 1961) for the maximum fitness, moving one center at a time."""
    centers = centers.copy()
    distances = points.distances(centers)
    value = _fitness(points, centers, limit)
    while step >= last:
        improved = False
        for k in range(len(centers)):
            others = _without(distances, k)
            candidates = centers[k] + step * _DIRECTIONS
            candidate_distances = points.distances(candidates)
            values = _value(np.minimum(candidate_distances, others), points, limit)
            best = int(values.argmax())
            if values[best] > value + 1e-9:
                value, improved = float(values[best]), True
                centers[k], distances[k] = candidates[best], candidate_distances[best]
        if not improved:
            step /= 2
    return centers


def _escape(
    points: _Points, best: Float[np.ndarray, "n 2"], limit: float, random: np.random.Generator, generations: int
) -> Float[np.ndarray, "n 2"]:
    """Try to leave a local optimum: relocate the least useful center, or perturb all, and refine."""
    value = _fitness(points, best, limit)
    for generation in range(generations):
        if generation % 2:
            trial = best + random.normal(0, 0.15, best.shape) * (random.random((len(best), 1)) < 0.4)
        else:
            trial = _relocated(points, best, limit, random)
        trial = _refine(points, trial, limit, _FIRST_STEP / 2, _LAST_STEP * 16)
        trial_value = _fitness(points, trial, limit)
        if trial_value > value + 1e-9:
            best, value = trial, trial_value
    return best


def _relocated(
    points: _Points, centers: Float[np.ndarray, "n 2"], limit: float, random: np.random.Generator
) -> Float[np.ndarray, "n 2"]:
    """Move a center, usually the one whose removal costs least, to the best of some random points."""
    distances = points.distances(centers)
    without = np.stack([_without(distances, k) for k in range(len(centers))])
    value_without = _value(without, points, limit)
    order: Int[np.ndarray, " n"] = np.argsort(-value_without, kind="stable")
    k = int(order[min(int(random.geometric(0.5)) - 1, len(order) - 1)])
    candidates = points.at[random.choice(len(points.at), min(64, len(points.at)), replace=False)]
    values = _value(np.minimum(points.distances(candidates), without[k]), points, limit)
    moved = centers.copy()
    moved[k] = candidates[int(values.argmax())]
    return moved


def _without(distances: Float[np.ndarray, "n m"], k: int) -> Float[np.ndarray, " m"]:
    """Distance of each point to its nearest center except the k-th."""
    if len(distances) == 1:
        return np.full(distances.shape[1], np.inf)
    return np.concatenate((distances[:k], distances[k + 1 :])).min(0)
