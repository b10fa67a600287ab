from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_cli.config import Hyperparameters
from yolo_cli.dataset import augment
from yolo_cli.dataset.color import ColorJitter, draw_planes
from yolo_cli.dataset.images import PAD_VALUE, shrink

sides = st.integers(20, 300)
sizes = st.tuples(sides, sides)
canvases = st.tuples(st.integers(64, 256), st.integers(64, 256))


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def white_extent(canvas: np.ndarray) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the pixels that are nearer white than black."""
    ys, xs = np.nonzero(canvas[:, :, 0] > 127)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="scale and shift"),
        pytest.param({"degrees": 30.0}, id="rotation"),
        pytest.param({"shear": 10.0}, id="shear"),
        pytest.param({"perspective": 0.0008}, id="perspective"),
        pytest.param({"degrees": 10.0, "shear": 5.0, "perspective": 0.0005}, id="all"),
    ],
)
@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_a_drawn_object_lies_in_its_transformed_box(changes: dict[str, float], resolution: float) -> None:
    """Draw a transformed disc, and compare its pixels with its transformed box."""
    hyp = replace(Hyperparameters(), translate=0.1, scale=0.3, **changes)
    size, canvas = (240, 320), (256, 256)
    y, x = np.mgrid[0:240, 0:320]
    image = np.zeros((240, 320, 3), np.uint8)
    image[(x + 0.5 - 150) ** 2 + (y + 0.5 - 120) ** 2 < 20**2] = 255
    if resolution != 1:
        image = shrink(image, (120, 160))
    # An octagon of boxes around the disc: the box of a rotated box would be larger than the disc.
    turns = np.arange(0, 2 * np.pi, np.pi / 64)
    rim = np.stack([150 + 20 * np.cos(turns), 120 + 20 * np.sin(turns)], -1)
    for seed in range(20):
        matrix = augment.random_transform(generator(seed), hyp, canvas, canvas)
        matrix = augment.snap_to_pixels(matrix @ augment.letterbox_matrix(size, canvas), size)
        drawn = np.zeros((*canvas, 3), np.uint8)
        augment.draw_tile(drawn, image, matrix, size)
        moved = augment._transform_points(matrix, rim)
        low, high = moved.min(0), moved.max(0)
        if (low < 2).any() or (high > 254).any():
            continue
        np.testing.assert_allclose(white_extent(drawn), [*low, *high], atol=1.5)
        weight = drawn[:, :, 0].astype(float)
        center = [(weight.sum(axis) * (np.arange(256) + 0.5)).sum() / weight.sum() for axis in (0, 1)]
        # Drawing by resizing rounds edges to whole pixels. Warping is exact: an error of half a pixel would fail here.
        np.testing.assert_allclose(center, (low + high) / 2, atol=0.25 if changes else 0.6)
        box = np.array([[150 / 320, 0.5, 40 / 320, 40 / 240]], np.float32)
        (xyxy,), (keep,) = augment.transform_boxes(box, matrix, size, canvas)
        assert keep
        assert (xyxy[:2] <= low + 0.01).all()
        assert (xyxy[2:] >= high - 0.01).all()


def test_drawing_by_resizing_agrees_with_warping() -> None:
    """The fast and the general way of drawing give the same picture."""
    y, x = np.mgrid[0:120, 0:160]
    image = np.stack([x, y, x // 2 + y // 2], -1).astype(np.uint8)
    for seed in range(10):
        random = generator(seed)
        matrix = augment.random_transform(random, Hyperparameters(), (200, 200), (100, 100))
        matrix = augment.snap_to_pixels(
            matrix @ augment.mosaic_matrices(random, [(120, 160)] * 4, (100, 100))[seed % 4], (120, 160)
        )
        fast, general = (np.full((100, 100, 3), PAD_VALUE, np.uint8) for _ in range(2))
        augment.draw_tile(fast, image, matrix, (120, 160))
        nearly = matrix.copy()
        nearly[0, 1] = 1e-9  # a negligible shear, which selects warping
        augment.draw_tile(general, image, nearly, (120, 160))
        inside = (general != PAD_VALUE).all(-1) & (fast != PAD_VALUE).all(-1)
        difference = np.abs(fast.astype(int) - general)[inside]
        assert difference.size == 0 or difference.max() <= 3  # one source pixel differs by 1 or 2
        assert ((fast != PAD_VALUE).any(-1) ^ (general != PAD_VALUE).any(-1)).sum() <= 500  # the rim


def test_mosaic_tiles_meet_without_overlap_or_seam() -> None:
    canvas = (128, 128)
    for seed in range(30):
        random = generator(seed)
        tiles = [(100, 120), (120, 100), (110, 110), (90, 130)]
        matrices = augment.mosaic_matrices(random, tiles, canvas)
        transform = augment.random_transform(random, Hyperparameters(), (256, 256), canvas)
        coverage = np.zeros(canvas, int)
        for tile_matrix, size in zip(matrices, tiles, strict=True):
            drawn = np.zeros((*canvas, 3), np.uint8)
            augment.draw_tile(
                drawn, np.full((*size, 3), 255, np.uint8), augment.snap_to_pixels(transform @ tile_matrix, size), size
            )
            coverage += drawn[:, :, 0] > 0
        assert coverage.max() <= 1
        center = augment._transform_points(transform @ matrices[3], np.zeros((1, 2)))[0]
        x, y = (round(float(v)) for v in center)
        if 2 < x < 126 and 2 < y < 126:
            assert coverage[y - 2 : y + 2, x - 2 : x + 2].all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(sizes, min_size=4, max_size=4), canvases, st.booleans())
def test_boxes_of_a_mosaic_lie_on_the_canvas(
    seed: int, tiles: list[tuple[int, int]], canvas: tuple[int, int], bent: bool
) -> None:
    random = generator(seed)
    hyp = replace(Hyperparameters(), scale=0.9, **({"degrees": 45.0, "perspective": 0.001} if bent else {}))
    boxes = np.concatenate([random.uniform(0, 1, (20, 2)), random.uniform(0.001, 1, (20, 2))], 1).astype(np.float32)
    matrices = augment.mosaic_matrices(random, tiles, canvas)
    transform = augment.random_transform(random, hyp, (canvas[0] * 2, canvas[1] * 2), canvas)
    for tile_matrix, size in zip(matrices, tiles, strict=True):
        matrix = augment.snap_to_pixels(transform @ tile_matrix, size)
        xyxy, keep = augment.transform_boxes(boxes, matrix, size, canvas)
        assert np.isfinite(xyxy).all()
        assert (xyxy >= 0).all()
        assert (xyxy <= [canvas[1], canvas[0]] * 2).all()
        kept = xyxy[keep]
        assert ((kept[:, 2:] - kept[:, :2]) > 2).all()
        if keep.any():
            assert augment.is_visible(matrix, size, canvas)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        pytest.param([0.5, 0.5, 0.2, 0.2], True, id="in the middle"),
        pytest.param([0.0, 0.5, 0.2, 0.2], True, id="half of it shows"),
        pytest.param([0.5, 0.5, 0.02, 0.5], False, id="2 pixels wide"),
        pytest.param([0.5, 0.5, 0.03, 0.5], True, id="3 pixels wide"),
    ],
)
def test_which_boxes_are_kept(box: list[float], kept: bool) -> None:
    _, keep = augment.transform_boxes(np.array([box], np.float32), np.eye(3), (100, 100), (100, 100))
    assert keep.tolist() == [kept]


@pytest.mark.parametrize(("shift", "kept"), [(-88.0, True), (-91.0, False)])
def test_a_box_is_kept_if_a_tenth_of_its_area_is_visible(shift: float, kept: bool) -> None:
    matrix = np.array([[1.0, 0.0, shift], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    whole = np.array([[0.5, 0.5, 1.0, 1.0]], np.float32)
    assert augment.transform_boxes(whole, matrix, (100, 100), (100, 100))[1].tolist() == [kept]


def test_thin_boxes_are_dropped() -> None:
    thin = np.array([[0.5, 0.5, 1.0, 0.01]], np.float32)
    assert augment.transform_boxes(thin, np.eye(3), (300, 400), (300, 400))[1].tolist() == [False]


@given(st.booleans(), st.booleans(), st.integers(0, 100))
def test_flipping_twice_changes_nothing(up: bool, left: bool, seed: int) -> None:
    xyxy = np.sort(generator(seed).uniform(0, 20, (5, 2, 2)), 1).reshape(5, 4).astype(np.float32)
    once = augment.flip_boxes(xyxy, (20, 30), up=up, left=left)
    twice = augment.flip_boxes(once, (20, 30), up=up, left=left)
    np.testing.assert_allclose(twice, xyxy, atol=1e-5)
    assert (up or left) == (once != xyxy).any()


@pytest.mark.parametrize("jitter", [None, ColorJitter(1.0, 1.0, 1.0)])
@pytest.mark.parametrize("height", [20, 4001])  # of which the second is more than a band of pixels
def test_flips_move_pixels_and_boxes_together(height: int, jitter: ColorJitter | None) -> None:
    image = np.zeros((height, 30, 3), np.uint8)
    image[2:7, 4:10] = 255
    for up, left in ((True, False), (False, True), (True, True)):
        planes = np.empty((3, height, 30), np.uint8)
        draw_planes(planes, image, jitter, up=up, left=left)
        xyxy = augment.flip_boxes(np.array([[4, 2, 10, 7]], np.float32), (height, 30), up=up, left=left)
        assert tuple(xyxy[0]) == white_extent(planes.transpose(1, 2, 0))


def test_perspective_never_reaches_the_horizon() -> None:
    hyp = replace(Hyperparameters(), perspective=0.001)
    corners = np.array([[x, y] for x in (-640, 1920) for y in (-640, 1920)], float)
    for seed in range(50):
        matrix = augment.random_transform(generator(seed), hyp, (2560, 2560), (1280, 1280))
        assert (corners @ matrix[2, :2] + matrix[2, 2] > 0).all()
