"""Which part of a large image a training sample shows, and its boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.dataset.tiles import BACKGROUND, MIN_VISIBLE, WHOLE, Window, choose_window, rows_in_window


@st.composite
def labeled_images(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray, int, int]:
    size = (draw(st.integers(33, 3000)), draw(st.integers(33, 3000)))
    count, seed = draw(st.integers(0, 5)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    low = random.random((count, 2))
    high = low + random.random((count, 2)) * (1 - low)
    rows = np.concatenate([np.zeros((count, 1)), (low + high) / 2, high - low], 1).astype(np.float32)
    return size, rows, draw(st.integers(32, 1500)), seed


@given(labeled_images())
def test_a_window_lies_in_the_image_and_its_boxes_in_the_window(
    case: tuple[tuple[int, int], np.ndarray, int, int],
) -> None:
    size, rows, side, seed = case
    window = choose_window(np.random.default_rng(seed), size, rows[:, 1:], side)
    assert window == choose_window(np.random.default_rng(seed), size, rows[:, 1:], side)
    if window is None:
        return
    assert max(size) > side
    assert 0 <= window.left < window.right <= size[1]
    assert 0 <= window.top < window.bottom <= size[0]
    assert window.size == (min(side, size[0]), min(side, size[1]))
    inside = rows_in_window(rows, window, size)
    low, high = inside[:, 1:3] - inside[:, 3:5] / 2, inside[:, 1:3] + inside[:, 3:5] / 2
    assert (low >= -1e-5).all()
    assert (high <= 1 + 1e-5).all()


def test_shares_of_whole_images_and_of_tiles_without_boxes() -> None:
    random = np.random.default_rng(0)
    rows = np.array([[0, 0.9, 0.9, 0.01, 0.01]], np.float32)  # most tiles of the image do not show it
    windows = [choose_window(random, (2000, 2000), rows[:, 1:], 200) for _ in range(3000)]
    tiles = [w for w in windows if w is not None]
    empty = sum(len(rows_in_window(rows, w, (2000, 2000))) == 0 for w in tiles)
    assert 1 - len(tiles) / 3000 == pytest.approx(WHOLE, abs=0.03)
    assert empty / 3000 == pytest.approx(BACKGROUND, abs=0.03)


def test_a_box_is_cut_by_the_window_and_ignored_where_little_of_it_is_visible() -> None:
    size, window = (100, 200), Window(50, 0, 150, 100)
    rows = np.array(
        [
            [1, 0.5, 0.5, 0.1, 0.2],  # 90 to 110, 40 to 60: whole
            [2, 0.25, 0.5, 0.1, 0.2],  # 40 to 60: half of it
            [3, 0.21, 0.5, 0.1, 0.2],  # 32 to 52: a tenth of it
            [1, 0.10, 0.5, 0.1, 0.2],  # 10 to 30: nothing
            [-1, 0.21, 0.5, 0.1, 0.2],  # of a region, any part counts
        ],
        np.float32,
    )
    inside = rows_in_window(rows, window, size)
    sliver = [-1, 0.01, 0.5, 0.02, 0.2]
    np.testing.assert_allclose(inside, [[1, 0.5, 0.5, 0.2, 0.2], [2, 0.05, 0.5, 0.1, 0.2], sliver, sliver], atol=1e-6)
    assert 0.1 < MIN_VISIBLE < 0.5
