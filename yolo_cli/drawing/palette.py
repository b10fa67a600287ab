"""One color a class, the same in every picture."""

import colorsys

# Okabe and Ito, "Color Universal Design" (2008): apart for all kinds of color vision. Yellow is last: pale on white.
_SAFE = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (240, 228, 66))
_GOLDEN = 0.618034  # of a turn: each new hue falls into the widest gap between the earlier ones


def palette(class_id: int) -> tuple[int, int, int]:
    """Red, green and blue in 0 … 255; the first seven classes get colors that color-blind people tell apart."""
    if class_id < len(_SAFE):
        return _SAFE[class_id]
    shade = (1.0, 0.75, 0.9)[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN % 1, 0.85, shade)
    return round(red * 255), round(green * 255), round(blue * 255)


def fraction(class_id: int) -> tuple[float, float, float]:
    """The color in 0 … 1, as matplotlib wants it."""
    red, green, blue = palette(class_id)
    return red / 255, green / 255, blue / 255
