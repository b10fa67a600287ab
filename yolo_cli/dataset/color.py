"""Random changes of hue, saturation and value. Pure functions: all randomness comes from the generator passed in.

The published way converts to HSV in 8 bits, maps each channel through a table, and converts back. The same can be done
without converting, with the largest channel of each pixel, m = max(r, g, b): scaling saturation by s and value by v
turns a channel c into v·(m − s·(m − c)). That takes 0.4 times as long.

Hue is different in one respect: the published way multiplies its number, which turns red by nothing or by twice the
mean, depending on the side of the zero. Here all colors of an image turn by the mean.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from yolo_cli.config import Hyperparameters

# A turn does not keep m. Beyond this change of hue, that would be visible, and pixels are converted to HSV instead.
_SMALL_TURN = 0.05
# Pixels that all steps are done for at a time. They stay in the processor's cache, which halves the time.
_BAND = 100_000


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """Factors of hue, saturation and value."""

    hue: float
    saturation: float
    value: float


def random_jitter(random: np.random.Generator, hyp: Hyperparameters) -> ColorJitter | None:
    """Factors of 1 ± the hyperparameters; None where all of these are 0."""
    hue, saturation, value = 1 + random.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    if hyp.hsv_h == hyp.hsv_s == hyp.hsv_v == 0:
        return None
    return ColorJitter(float(hue), float(saturation), float(value))


def draw_planes(
    planes: UInt8[np.ndarray, "3 h w"],
    image: UInt8[np.ndarray, "h w 3"],
    jitter: ColorJitter | None = None,
    *,
    up: bool = False,
    left: bool = False,
) -> None:
    """Write the channels of an RGB image, with other colors, and flipped vertically (`up`) or horizontally (`left`)."""
    height, width = image.shape[:2]
    flip = -1 if up and left else 0 if up else 1 if left else None
    rows = max(_BAND // width, 1)
    # Allocating new arrays for each band would take longer than the operations on them.
    scratch = np.empty((5, min(rows, height), width), np.uint8)
    for top in range(0, height, rows):
        end = min(top + rows, height)
        band = planes[:, height - end : height - top] if up else planes[:, top:end]
        drawn = scratch[:3, : end - top] if flip is not None else band
        _draw_band(list(drawn), image[top:end], jitter, list(scratch[3:, : end - top]))
        if flip is not None:
            for source, part in zip(drawn, band, strict=True):
                cv2.flip(source, flip, dst=part)


def _draw_band(
    planes: list[UInt8[np.ndarray, "h w"]],
    image: UInt8[np.ndarray, "h w 3"],
    jitter: ColorJitter | None,
    scratch: list[UInt8[np.ndarray, "h w"]],
) -> None:
    small = jitter is not None and abs(jitter.hue - 1) <= _SMALL_TURN
    if jitter is not None and not small:
        image = apply_hsv(image, jitter)
    elif jitter is not None and jitter.hue != 1:
        image = cv2.transform(image, _turn(jitter.hue))
    cv2.split(image, planes)
    if jitter is not None and small:
        _scale_saturation_and_value(planes, jitter, scratch)


def apply_hsv(image: UInt8[np.ndarray, "h w 3"], jitter: ColorJitter) -> UInt8[np.ndarray, "h w 3"]:
    """The published way: hue (0 … 179), saturation and value in 8 bits, each through a table."""
    levels = np.arange(256)
    hue, saturation, value = levels * jitter.hue % 180, levels * jitter.saturation, levels * jitter.value
    tables = np.stack((hue, np.clip(saturation, 0, 255), np.clip(value, 0, 255)), -1).astype(np.uint8)[None]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables, dst=hsv), cv2.COLOR_HSV2RGB)


def _scale_saturation_and_value(
    planes: list[UInt8[np.ndarray, "h w"]], jitter: ColorJitter, scratch: list[UInt8[np.ndarray, "h w"]]
) -> None:
    largest, scaled = scratch
    cv2.max(cv2.max(planes[0], planes[1], dst=largest), planes[2], dst=largest)
    # Value ends at 255 without a change of hue: m is cut, not each channel.
    cv2.convertScaleAbs(largest, dst=scaled, alpha=jitter.value)
    for plane in planes:
        cv2.subtract(largest, plane, dst=plane)
        cv2.addWeighted(scaled, 1.0, plane, -jitter.saturation * jitter.value, 0.0, dst=plane)


def _turn(hue: float) -> Float[np.ndarray, "3 3"]:
    """Rotates RGB around the gray axis, by the angle that the factor adds to a hue of 180°."""
    angle = (hue - 1) * math.pi
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    same, other = (1 + 2 * cos) / 3, (1 - cos) / 3
    return np.array(
        [[same, other - sin, other + sin], [other + sin, same, other - sin], [other - sin, other + sin, same]]
    )
