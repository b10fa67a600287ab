"""A color per class."""

import colorsys

# Okabe and Ito, "Color Universal Design" (2008): distinct for all kinds of color vision. Pale yellow is last.
_SAFE = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (240, 228, 66))
_GOLDEN_RATIO = 0.618034  # of a turn: each hue is in the widest gap between the ones before


def class_color(class_id: int) -> tuple[int, int, int]:
    """Red, green and blue in 0 … 255. The first seven colors are distinct for color-blind people."""
    if class_id < len(_SAFE):
        return _SAFE[class_id]
    shade = (1.0, 0.75, 0.9)[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN_RATIO % 1, 0.85, shade)
    return round(red * 255), round(green * 255), round(blue * 255)


def class_color_float(class_id: int) -> tuple[float, float, float]:
    """Red, green and blue in 0 … 1, for matplotlib."""
    red, green, blue = class_color(class_id)
    return red / 255, green / 255, blue / 255
