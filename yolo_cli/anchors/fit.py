"""Fits anchors to box sizes: k-means in the metric of the matching, then a search on the training fitness itself.

In logarithms of width and height the matching ratio of a box and an anchor is e^(−d), d the larger of the two
differences (the L∞ distance). So anchors are centers, and their fitness is the mean of e^(−d) to the nearest one, cut
off at ln thr. Boxes are few distinct points with weights, in order of size: the order of boxes cannot matter.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.errors import UserError

_STARTS = 12  # k-means runs; the best few are refined
_REFINED = 3
_LLOYD_STEPS = 20
_MAX_POINTS = 4096  # more distinct sizes than this are put into cells first
_CELLS = (0.04, 0.015)  # width of a cell in logarithms: for the search, for the polish
_DIRECTIONS = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y], np.float64)
_FIRST_STEP, _LAST_STEP = 0.2, 0.0005


@dataclass(frozen=True, slots=True)
class _Points:
    """Distinct box sizes in logarithms, with the share of boxes that have each."""

    at: Float[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]

    def distances(self, centers: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n m"]:
        across = np.abs(centers[:, :1] - self.at[:, 0])
        return np.asarray(np.maximum(across, np.abs(centers[:, 1:] - self.at[:, 1])))


def fit_anchors(
    sizes: Float[np.ndarray, "m 2"], n: int, *, thr: float, seed: int = 0, generations: int = 60
) -> Float[np.ndarray, "n 2"]:
    """The `n` anchors (width, height in pixels, sorted by area) that suit the boxes best, as far as the search finds.

    Always n of them, the same for the same boxes in any order and the same seed. `generations` are attempts to leave a
    local optimum. Raises UserError where there is no box.
    """
    if not len(sizes):
        raise UserError("no boxes to fit anchors to", fix="give a split that has labels")
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
    return np.asarray(anchors[np.lexsort((anchors[:, 0], anchors.prod(1)))])


def _points(sizes: Float[np.ndarray, "m 2"], cell: float) -> _Points:
    """Distinct sizes; many of them as the means of square cells."""
    logs = np.log(sizes)
    logs = logs[np.lexsort((logs[:, 1], logs[:, 0]))]  # sums below must not depend on the order of boxes
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
    """Fitness of k alternatives, each given as the distance of every point to its nearest center."""
    return np.asarray(np.where(nearest < limit, np.exp(-nearest), 0.0) @ points.weight)


def _k_means(points: _Points, n: int, random: np.random.Generator) -> Float[np.ndarray, "n 2"]:
    """k-means++ seeding (Arthur & Vassilvitskii 2007) and Lloyd steps, in the L∞ distance of logarithms."""
    centers = points.at[random.choice(len(points.at), 1, p=points.weight)]
    for k in range(1, n):
        chance = points.distances(centers).min(0) ** 2 * points.weight
        if chance.sum() > 0:
            new = points.at[random.choice(len(points.at), p=chance / chance.sum())]
        else:  # fewer distinct sizes than anchors: the rest spreads around them, so that there are n all the same
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
    """The weighted L∞ median: in the rotated coordinates x + y, x − y it is the median of each."""
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
    """Compass search (Hooke & Jeeves 1961) on the fitness: one center at a time, steps halved when none helps."""
    centers = centers.copy()
    distances = points.distances(centers)
    value = _fitness(points, centers, limit)
    while step >= last:
        improved = False
        for k in range(len(centers)):
            others = _without(distances, k)
            candidates = centers[k] + step * _DIRECTIONS
            away = points.distances(candidates)
            values = _value(np.minimum(away, others), points, limit)
            best = int(values.argmax())
            if values[best] > value + 1e-9:
                value, improved = float(values[best]), True
                centers[k], distances[k] = candidates[best], away[best]
        if not improved:
            step /= 2
    return centers


def _escape(
    points: _Points, best: Float[np.ndarray, "n 2"], limit: float, random: np.random.Generator, generations: int
) -> Float[np.ndarray, "n 2"]:
    """Try to leave the local optimum: move the center that is missed least to where one is missed most, or shake."""
    value = _fitness(points, best, limit)
    for generation in range(generations):
        if generation % 2:
            trial = best + random.normal(0, 0.15, best.shape) * (random.random((len(best), 1)) < 0.4)
        else:
            trial = _relocated(points, best, limit, random)
        trial = _refine(points, trial, limit, _FIRST_STEP / 2, _LAST_STEP * 16)
        found = _fitness(points, trial, limit)
        if found > value + 1e-9:
            best, value = trial, found
    return best


def _relocated(
    points: _Points, centers: Float[np.ndarray, "n 2"], limit: float, random: np.random.Generator
) -> Float[np.ndarray, "n 2"]:
    distances = points.distances(centers)
    without = np.stack([_without(distances, k) for k in range(len(centers))])
    missed = _value(without, points, limit)
    # mostly the least missed, sometimes another
    order: Int[np.ndarray, " n"] = np.argsort(-missed, kind="stable")
    k = int(order[min(int(random.geometric(0.5)) - 1, len(order) - 1)])
    places = points.at[random.choice(len(points.at), min(64, len(points.at)), replace=False)]
    gained = _value(np.minimum(points.distances(places), without[k]), points, limit)
    moved = centers.copy()
    moved[k] = places[int(gained.argmax())]
    return moved


def _without(distances: Float[np.ndarray, "n m"], k: int) -> Float[np.ndarray, " m"]:
    """Distance of every point to its nearest center but the k-th."""
    if len(distances) == 1:
        return np.full(distances.shape[1], np.inf)
    rest = np.concatenate((distances[:k], distances[k + 1 :]))
    return np.asarray(rest.min(0))
