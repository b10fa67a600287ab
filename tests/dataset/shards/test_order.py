import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.dataset.sampler import EpochBatchSampler
from yolo_cli.dataset.shards.order import shard_ends, window_order

SHARDS = np.repeat(np.arange(40), 25)


def order_of(window: int, seed: int = 0, shards: np.ndarray = SHARDS) -> np.ndarray:
    return window_order(shards, window, np.random.default_rng(seed))


def open_shards(order: np.ndarray, shards: np.ndarray) -> np.ndarray:
    """At each position, the number of shards that have been begun and are not finished."""
    in_order = shards[order]
    position = np.arange(len(order))
    first, last = (np.zeros(shards.max() + 1, int) for _ in range(2))
    last[in_order] = position
    first[in_order[::-1]] = position[::-1]
    return ((first[:, None] <= position) & (position <= last[:, None])).sum(0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 25), st.integers(0, 9))
def test_every_image_once(counts: list[int], window: int, seed: int) -> None:
    shards = np.repeat(np.arange(len(counts)), counts)
    assert sorted(order_of(window, seed, shards).tolist()) == list(range(sum(counts)))


def test_no_more_shards_than_the_window_are_open() -> None:
    for window in (1, 4, 8):
        assert open_shards(order_of(window), SHARDS).max() <= window + 1


def test_images_of_a_window_are_mixed() -> None:
    in_order = SHARDS[order_of(8)]
    batches = [len(set(in_order[start : start + 50].tolist())) for start in range(0, 1000, 50)]
    assert min(batches) >= 4  # half a window at the ends
    assert np.mean(batches) > 7


def test_order_depends_on_the_random_generator_only() -> None:
    assert (order_of(4, 1) == order_of(4, 1)).all()
    assert (order_of(4, 1) != order_of(4, 2)).any()


def test_ends_of_the_shards_in_an_order() -> None:
    order, shards = np.array([2, 0, 3, 1]), np.array([0, 0, 1, 1])
    numbers, last = shard_ends(order, shards)
    assert numbers.tolist() == [1, 0]
    assert last.tolist() == [2, 3]


def keys(epoch: int, *, start: int = 0, rank: int = 0, size: int = 1, weights: np.ndarray | None = None) -> list:
    batches = EpochBatchSampler(
        1000, 10, (64, 64), shuffle=True, shards=SHARDS, shard_window=4, weights=weights, rank=rank, world_size=size
    )
    batches.set_epoch(epoch, start)
    return [(key.index, key.repeat) for keys in batches for key in keys]


def test_an_epoch_resumes_in_the_middle() -> None:
    assert keys(3, start=40) == keys(3)[400:]
    assert keys(3) != keys(4)


def test_ranks_take_disjoint_parts_of_one_order() -> None:
    parts = [keys(1, rank=rank, size=4) for rank in range(4)]
    assert [key for step in zip(*parts, strict=True) for key in step] == keys(1)


def test_weighted_images_come_from_a_window_too() -> None:
    weights = np.arange(1000) % 3 * 1.0
    drawn = keys(0, weights=weights)
    assert all(weights[index] for index, _ in drawn)
    assert len(set(drawn)) == 1000
    assert open_shards(np.array([index for index, _ in drawn]), SHARDS).max() <= 5
