"""Assigns groups of images to subsets of given sizes, with the classes spread evenly."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from yolo_cli.dataset.label_index import LabelIndex

_PASSES = 10  # over all groups; most splits need two or three


class Groups:
    """Images that must stay together: a union of sets of rows."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, a: int, b: int) -> None:
        """Put the groups of two images together."""
        a, b = self._root(a), self._root(b)
        self._parent[max(a, b)] = min(a, b)

    def join_equal(self, keys: Sequence[object]) -> None:
        """Put the images together whose keys are equal; None is equal to nothing."""
        first: dict[object, int] = {}
        for i, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, i), i)

    def numbers(self) -> Int64[np.ndarray, " n"]:
        """The group of each image, numbered from 0 in the order of their first images."""
        roots = np.array([self._root(i) for i in range(len(self._parent))], np.int64)
        return np.unique(roots, return_inverse=True)[1].astype(np.int64)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i


def images_per_class(index: LabelIndex, nc: int) -> Int64[np.ndarray, "n nc1"]:
    """1 for each class that an image has, and in the last column for background."""
    table = np.zeros((len(index), nc + 1), np.int64)
    table[np.repeat(np.arange(len(index)), np.diff(index.offsets)), index.classes] = 1
    table[np.diff(index.offsets) == 0, nc] = 1
    return table


def assign_groups(
    groups: Int64[np.ndarray, " n"],
    fractions: Sequence[float],
    classes: Int64[np.ndarray, "n columns"] | None,
    seed: int,
) -> Int64[np.ndarray, " n"]:
    """The subset of each image; images of one group share it. `fractions` of all images are the sizes of the subsets.

    With `classes` (images × classes), each class is spread by the same fractions: groups with the rarest class are
    assigned first, each to the subset that lacks most images of that class (Sechidis et al. 2011, iterative
    stratification, here for groups). Then groups move between subsets while classes and sizes fit better by that.
    """
    count = int(groups.max(initial=-1)) + 1
    sizes = np.bincount(groups, minlength=count)
    shares = np.asarray(fractions, np.float64) / sum(fractions)
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    order = order[np.argsort(-sizes[order], kind="stable")]  # large groups first: small ones fill what is left
    if classes is None:
        return _fill(order, sizes, shares)[groups]
    per_group = np.zeros((count, classes.shape[1]), np.int64)
    np.add.at(per_group, groups, classes)
    subset = _stratify(order, sizes, per_group, shares)
    _refine(subset, order, np.column_stack([per_group, sizes]), shares)
    return subset[groups]


def _fill(
    order: Int64[np.ndarray, " g"], sizes: Int64[np.ndarray, " g"], shares: Float64[np.ndarray, " k"]
) -> Int64[np.ndarray, " g"]:
    """Give each group to the subset with most room."""
    subset, room = np.zeros(len(order), np.int64), sizes.sum() * shares
    for group in order:
        subset[group] = best = int(np.argmax(room))
        room[best] -= sizes[group]
    return subset


def _stratify(
    order: Int64[np.ndarray, " g"],
    sizes: Int64[np.ndarray, " g"],
    per_group: Int64[np.ndarray, "g columns"],
    shares: Float64[np.ndarray, " k"],
) -> Int64[np.ndarray, " g"]:
    """The subset of each group, by its rarest class; groups without any class fill what is left."""
    subset = np.full(len(order), -1, np.int64)
    lacking = np.outer(per_group.sum(0), shares)  # images of each class that each subset still lacks
    room, left = sizes.sum() * shares, per_group.sum(0)
    while left.any():
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for group in order[(subset[order] < 0) & (per_group[order, rarest] > 0)]:
            best = int(np.lexsort((-room, -lacking[rarest]))[0])
            subset[group] = best
            lacking[:, best] -= per_group[group]
            room[best] -= sizes[group]
            left -= per_group[group]
    for group in order[subset[order] < 0]:
        subset[group] = best = int(np.argmax(room))
        room[best] -= sizes[group]
    return subset


def _refine(
    subset: Int64[np.ndarray, " g"],
    order: Int64[np.ndarray, " g"],
    columns: Int64[np.ndarray, "g columns"],
    shares: Float64[np.ndarray, " k"],
) -> None:
    """Move groups between subsets while that lowers the sum of (count − wanted)² / wanted.

    The last column, the number of images, weighs as much as all classes together.
    """
    totals = columns.sum(0)
    used = totals > 0
    columns, wanted = columns[:, used], np.outer(totals[used], shares)
    weight = 1 / wanted
    weight[-1] *= max(len(wanted) - 1, 1)
    excess = -wanted
    for k in range(len(shares)):
        excess[:, k] += columns[subset == k].sum(0)
    for _ in range(_PASSES):
        moved = 0
        for group in order:
            own, here = columns[group][:, None], int(subset[group])
            gain = (weight * own * (2 * excess + own)).sum(0)  # what the sum grows by if the group joins each subset
            leaving = float((weight[:, here] * own[:, 0] * (2 * excess[:, here] - own[:, 0])).sum())
            gain[here] = leaving
            best = int(np.argmin(gain))
            if gain[best] < leaving - 1e-9:
                excess[:, here] -= own[:, 0]
                excess[:, best] += own[:, 0]
                subset[group] = best
                moved += 1
        if not moved:
            return
