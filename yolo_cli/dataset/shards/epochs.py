"""Fetches the shards of a split ahead of a loader that reads them, epoch after epoch."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from yolo_cli.dataset.shards.order import shard_ends
from yolo_cli.dataset.shards.spool import AHEAD, PlannedShard, ShardSpool
from yolo_cli.dataset.shards.store import ShardState

_MAX_BYTES_KEPT = 10 * 2**30  # up to this size a validation split is kept for the whole run
_MARGIN = 256  # positions behind the training at which an image may still be read, by a mosaic or a slower process


class EpochSpool:
    """The copies of those shards that a training needs soon.

    `urls` are all shards of the split, `shards` the number of each image's shard among them. Shards that are not in
    `states` are on the disk already. `window` is that of `window_order`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        shards: Int64[np.ndarray, " n"],
        states: Mapping[str, ShardState],
        window: int,
        run: str,
    ) -> None:
        self._urls, self._shards, self._states = urls, shards, states
        self._capacity = min(window + 1 + AHEAD, len(states))
        self._spool = ShardSpool(self._capacity, states, run)
        self.folder = self._spool.folder

    def start(self, epoch: int, order: Callable[[int], Int64[np.ndarray, " n"]], position: int) -> None:
        """Fetch what an epoch needs from a position of its order on, then what the next epoch begins with."""
        if self._spool.is_owner:
            now, following = self._planned(order(epoch), 0), self._planned(order(epoch + 1), len(self._shards))
            self._spool.plan([*now, *following[: self._capacity]])
            self.advance(position)

    def advance(self, position: int) -> None:
        """The training has reached a position of the order."""
        self._spool.advance(position - _MARGIN)

    def close(self) -> None:
        """End the fetching and remove the copies."""
        self._spool.close()

    def _planned(self, order: Int64[np.ndarray, " n"], offset: int) -> list[PlannedShard]:
        numbers, last = shard_ends(order, self._shards)
        ends = zip((self._urls[number] for number in numbers.tolist()), (last + offset).tolist(), strict=True)
        return [PlannedShard(url, self._states[url], end) for url, end in ends if url in self._states]


def keep_all(states: Mapping[str, ShardState], run: str) -> ShardSpool | None:
    """Fetch all shards of a small split and keep them, for one that is read in every epoch; None for a large one."""
    size = sum(state.size for state in states.values())
    if size > min(_MAX_BYTES_KEPT, shutil.disk_usage(tempfile.gettempdir()).free / 2):
        return None
    spool = ShardSpool(len(states), states, run)
    spool.plan([PlannedShard(url, state, 0) for url, state in states.items()])
    return spool
