"""Random colors: what happens to hue, saturation and value, compared with the definition of HSV in floating point."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.color import ColorJitter, apply_hsv, draw_planes, random_jitter

SATURATION, VALUE = st.floats(0.3, 1.7), st.floats(0.6, 1.4)
HYP = Hyperparameters()


def hsv(rgb: np.ndarray) -> np.ndarray:
    """Hue in degrees, saturation and value from 0 to 1."""
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)


def changed(rgb: np.ndarray, jitter: ColorJitter | None) -> np.ndarray:
    planes = np.empty((3, *rgb.shape[:2]), np.uint8)
    draw_planes(planes, rgb, jitter)
    return planes.transpose(1, 2, 0)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@given(SATURATION, VALUE, st.integers(0, 100))
def test_saturation_and_value_are_scaled_and_hue_is_kept(saturation: float, value: float, seed: int) -> None:
    image = noise(seed)
    before, after = hsv(image), hsv(changed(image, ColorJitter(1.0, saturation, value)))
    brightness = np.minimum(before[..., 2] * value, 1)
    np.testing.assert_allclose(after[..., 2], brightness, atol=1 / 255)
    plain = (before[..., 1] * saturation < 1) & (before[..., 2] * value < 1) & (brightness > 0.1)
    np.testing.assert_allclose(after[plain][:, 1], before[plain][:, 1] * saturation, atol=0.05)
    colored = plain & (after[..., 1] * after[..., 2] > 0.2)
    turn = (after[colored][:, 0] - before[colored][:, 0] + 180) % 360 - 180
    assert np.abs(turn).max(initial=0) < 3  # rounding to 8 bits


@pytest.mark.parametrize("hue", [0.97, 0.985, 1.015, 1.03])
def test_all_colors_turn_by_the_mean_angle_of_the_published_way(hue: float) -> None:
    angles = np.arange(0, 360, 10, np.float32)
    pixels = np.stack([angles, np.full(36, 0.5, np.float32), np.full(36, 0.8, np.float32)], -1)[None]
    image = np.round(cv2.cvtColor(pixels, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)
    after = hsv(changed(image, ColorJitter(hue, 1.0, 1.0)))[0]
    turn = (after[:, 0] - hsv(image)[0, :, 0] + 180) % 360 - 180
    np.testing.assert_allclose(turn, (hue - 1) * 180, atol=1.6)
    np.testing.assert_allclose(after[:, 2], 0.8, atol=0.03)
    gray = np.full((1, 1, 3), 90, np.uint8)
    np.testing.assert_array_equal(changed(gray, ColorJitter(hue, 1.0, 1.0)), gray)


def test_photographs_look_as_in_the_published_way(reference: Path) -> None:
    """The mean difference from the published 8-bit tables is 1.2 of 255 levels; that of their rounding alone is 0.3."""
    random, differences = np.random.default_rng(0), []
    for file in sorted((reference / "datasets" / "coco128" / "images" / "val2017").glob("*.jpg"))[:24]:
        image = np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1])
        jitter = random_jitter(random, HYP)
        assert jitter is not None
        differences.append(np.abs(changed(image, jitter).astype(int) - apply_hsv(image, jitter)))
    means = [difference.mean() for difference in differences]
    assert np.mean(means) < 2
    assert max(means) < 8
    assert np.mean([(difference > 10).mean() for difference in differences]) < 0.05


def test_a_large_turn_is_done_in_hsv() -> None:
    image, jitter = noise(0), ColorJitter(1.3, 1.1, 0.9)
    np.testing.assert_array_equal(changed(image, jitter), apply_hsv(image, jitter))


def test_factors_of_one_change_nothing() -> None:
    image = noise(1)
    for jitter in (None, ColorJitter(1.0, 1.0, 1.0)):
        np.testing.assert_array_equal(changed(image, jitter), image)


def test_factors_have_the_range_of_the_hyperparameters() -> None:
    random = np.random.default_rng(0)
    drawn = np.array([[j.hue, j.saturation, j.value] for _ in range(500) if (j := random_jitter(random, HYP))])
    limits = np.array([HYP.hsv_h, HYP.hsv_s, HYP.hsv_v])
    np.testing.assert_allclose(drawn.max(0), 1 + limits, rtol=0.02)
    np.testing.assert_allclose(drawn.min(0), 1 - limits, rtol=0.02)
    assert random_jitter(random, replace(HYP, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)) is None
