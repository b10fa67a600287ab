"""Groups of images in subsets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.dataset.splitting import Groups, assign_groups


def test_joined_images_share_a_number() -> None:
    groups = Groups(6)
    groups.join(4, 1)
    groups.join_equal(["a", None, "b", None, "b", "c"])
    assert groups.numbers().tolist() == [0, 1, 1, 2, 1, 3]


@given(
    groups=st.lists(st.integers(0, 8), min_size=1, max_size=60),
    shares=st.lists(st.floats(0.05, 1), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    stratify=st.booleans(),
)
def test_groups_are_never_cut_and_nothing_is_lost(
    groups: list[int], shares: list[float], seed: int, stratify: bool
) -> None:
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    classes = np.random.default_rng(seed).integers(0, 2, (len(groups), 4)) if stratify else None
    subset = assign_groups(numbers, shares, classes, seed)
    assert ((subset >= 0) & (subset < len(shares))).all()
    for group in range(numbers.max() + 1):
        assert len(np.unique(subset[numbers == group])) == 1


@pytest.mark.parametrize("stratify", [False, True])
def test_subsets_have_the_sizes_asked_for(stratify: bool) -> None:
    classes = np.random.default_rng(0).integers(0, 2, (1000, 5)) if stratify else None
    subset = assign_groups(np.arange(1000), [0.7, 0.2, 0.1], classes, 0)
    np.testing.assert_allclose(np.bincount(subset) / 1000, [0.7, 0.2, 0.1], atol=0.02)


def test_rare_classes_are_spread_evenly() -> None:
    """Ten images of class 0 among 500: by chance, one of five folds has none in one of two draws."""
    classes = np.zeros((500, 3), np.int64)
    classes[:10, 0] = 1
    classes[np.random.default_rng(0).random(500) < 0.3, 1] = 1
    classes[:, 2] = 1
    for seed in range(20):
        subset = assign_groups(np.arange(500), [1.0] * 5, classes, seed)
        assert np.bincount(subset[:10], minlength=5).tolist() == [2] * 5
        per_fold = np.bincount(subset, weights=classes[:, 1], minlength=5)
        assert per_fold.max() - per_fold.min() <= 2
        assert np.bincount(subset).tolist() == [100] * 5


def test_another_seed_is_another_split_and_the_same_seed_the_same() -> None:
    one, again, other = (assign_groups(np.arange(100), [0.5, 0.5], None, seed) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist() != other.tolist()


def test_a_large_group_does_not_spoil_the_sizes() -> None:
    groups = np.concatenate([np.zeros(60, np.int64), np.arange(1, 41)])
    subset = assign_groups(groups, [0.8, 0.2], None, 0)
    assert np.bincount(subset).tolist() == [80, 20]
