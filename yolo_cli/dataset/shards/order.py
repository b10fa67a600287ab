"""The order of an epoch that reads tar shards one after the other."""

import numpy as np
from jaxtyping import Int, Int64

DEFAULT_WINDOW = 8  # shards at URLs that are shuffled together


def window_order(
    shards: Int64[np.ndarray, " n"],
    window: int,
    random: np.random.Generator,
    drawn: Int[np.ndarray, " m"] | None = None,
) -> Int64[np.ndarray, " m"]:
    """The images `drawn`, by default all of them, in an order that needs only about `window` shards at a time.

    `shards` is the shard number of each image. The shards are shuffled. The image of the k-th shard is then placed at
    random between the places of the shards k − window/2 and k + window/2. So the window slides by one shard at a time,
    images of every shard in it are mixed, and the first and last batches of an epoch mix half as many.
    """
    drawn = np.arange(len(shards)) if drawn is None else drawn
    count = int(shards.max()) + 1 if len(shards) else 0
    place = random.permutation(count)[shards[drawn]] + 0.5
    first, last = np.maximum(place - window / 2, 0), np.minimum(place + window / 2, count)
    return np.asarray(drawn[np.argsort(first + random.random(len(drawn)) * (last - first), kind="stable")], np.int64)


def shard_ends(
    order: Int64[np.ndarray, " m"], shards: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """The shards that an order needs, the one that is needed first first, and the last position of each."""
    in_order = shards[order]
    needed, first = np.unique(in_order, return_index=True)
    last = len(order) - 1 - np.unique(in_order[::-1], return_index=True)[1]
    by_first = np.argsort(first, kind="stable")
    return needed[by_first], last[by_first].astype(np.int64)
