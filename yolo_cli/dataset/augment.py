"""Augmentation of images and their boxes. Pure functions: all randomness comes from the generator passed in.

A tile's position in the mosaic and the random transform are multiplied into one 3×3 matrix per image, from its pixels
to the canvas. Each image is then drawn once, directly into its part of the canvas, and the mosaic of twice the size
that the transform is defined on never exists in memory. Matrices act on continuous coordinates: a pixel covers a unit
square, and its center lies at one half.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.images import fitted_size

Matrix = Float[np.ndarray, "3 3"]
Size = tuple[int, int]  # height, width

MIN_SIDE = 2.0  # pixels; boxes smaller than this after the transform are dropped
MIN_VISIBLE = 0.1  # fraction of a box's area
MAX_ASPECT = 100.0

_MAX_TOWARDS_HORIZON = 0.9  # how near perspective may bring a mosaic's corner to the horizon, as a fraction


def random_transform(random: np.random.Generator, hyp: Hyperparameters, source: Size, canvas: Size) -> Matrix:
    """Perspective, rotation, scale, shear and translation, from an image of size `source` to `canvas`.

    The image's center maps to the canvas's center ± `translate`.
    """
    perspective_x, perspective_y = random.uniform(-hyp.perspective, hyp.perspective, 2)
    angle = math.radians(random.uniform(-hyp.degrees, hyp.degrees))
    gain = random.uniform(1 - hyp.scale, 1 + hyp.scale)
    shear_x, shear_y = np.tan(np.radians(random.uniform(-hyp.shear, hyp.shear, 2)))
    shift_x, shift_y = random.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2)
    center = _translation(-source[1] / 2, -source[0] / 2)
    # The images of a mosaic extend up to half its nominal size beyond its border.
    steepest = 0.75 * (abs(perspective_x) * source[1] + abs(perspective_y) * source[0])
    perspective = np.eye(3)
    perspective[2, :2] = np.array([perspective_x, perspective_y]) * min(
        1.0, _MAX_TOWARDS_HORIZON / max(steepest, 1e-12)
    )
    cos, sin = gain * math.cos(angle), gain * math.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.array([[1.0, shear_x, 0.0], [shear_y, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return _translation(shift_x * canvas[1], shift_y * canvas[0]) @ shear @ rotation @ perspective @ center


def letterbox_matrix(size: Size, canvas: Size) -> Matrix:
    """Scale an image of `size` to fit the canvas, centered."""
    height, width = fitted_size(size, canvas)
    offset = _translation((canvas[1] - width) // 2, (canvas[0] - height) // 2)
    return offset @ np.diag([width / size[1], height / size[0], 1.0])


def mosaic_matrices(random: np.random.Generator, sizes: list[Size], canvas: Size) -> list[Matrix]:
    """Four images, each scaled to fit the canvas, around a random point of a mosaic of twice the canvas's size.

    The point lies in the middle half of each axis, and the images' inner corners meet there (Bochkovskiy et al. 2020,
    YOLOv4, section 3.3).
    """
    y, x = (round(random.uniform(0.5 * side, 1.5 * side)) for side in canvas)
    matrices = []
    for corner, size in enumerate(sizes):
        height, width = fitted_size(size, canvas)
        left, top = x - width * (corner % 2 == 0), y - height * (corner < 2)
        matrices.append(_translation(left, top) @ np.diag([width / size[1], height / size[0], 1.0]))
    return matrices


def snap_to_pixels(matrix: Matrix, size: Size) -> Matrix:
    """Adjust an axis-aligned transform by less than a pixel, so that the image's edges fall on whole canvas pixels.

    Such an image can be drawn by resizing, which is several times faster than warping, and its boxes follow the same
    matrix. Other transforms are returned unchanged.
    """
    if not is_axis_aligned(matrix):
        return matrix
    left, top, right, bottom = _edges(matrix, size)
    return np.array(
        [
            [max(right - left, 1) / size[1], 0.0, left],
            [0.0, max(bottom - top, 1) / size[0], top],
            [0.0, 0.0, 1.0],
        ]
    )


def is_visible(matrix: Matrix, size: Size, canvas: Size) -> bool:
    """Whether any part of an image of `size` may lie on the canvas."""
    left, top, right, bottom = _bounds(matrix, size)
    return left < canvas[1] and top < canvas[0] and right > 0 and bottom > 0


def draw_tile(
    canvas: UInt8[np.ndarray, "ch cw 3"], image: UInt8[np.ndarray, "h w 3"], matrix: Matrix, size: Size
) -> None:
    """Draw an image onto the canvas, in place, through a matrix from `snap_to_pixels`.

    `matrix` maps an image of `size` (height, width); `image` may hold it at another resolution.
    """
    if is_axis_aligned(matrix):
        _draw_axis_aligned(canvas, image, _edges(matrix, size))
        return
    left, top, right, bottom = _bounds(matrix, size)
    left, top = max(math.floor(left), 0), max(math.floor(top), 0)
    right, bottom = min(math.ceil(right), canvas.shape[1]), min(math.ceil(bottom), canvas.shape[0])
    if right <= left or bottom <= top:
        return
    resolution = np.diag([size[1] / image.shape[1], size[0] / image.shape[0], 1.0])
    # cv2 measures from pixel centers.
    warp = _translation(-left - 0.5, -top - 0.5) @ matrix @ resolution @ _translation(0.5, 0.5)
    part = canvas[top:bottom, left:right]
    extent = (right - left, bottom - top)
    if warp[2, 0] == 0 and warp[2, 1] == 0:
        cv2.warpAffine(
            image, warp[:2] / warp[2, 2], extent, dst=part, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
        )
    else:
        cv2.warpPerspective(image, warp, extent, dst=part, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)


def transform_boxes(
    boxes_cxcywhn: Float32[np.ndarray, "n 4"], matrix: Matrix, size: Size, canvas: Size
) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
    """Map the boxes of an image of `size` to the canvas: xyxy in canvas pixels, and which of them to keep.

    A box becomes the bounding box of its four transformed corners, clipped to the canvas. It is kept where both sides
    exceed 2 pixels, more than a tenth of its area is visible, and its aspect ratio is below 100.
    """
    if not len(boxes_cxcywhn):
        return np.zeros((0, 4), np.float32), np.zeros(0, bool)
    center, half = boxes_cxcywhn[:, :2].astype(np.float64), boxes_cxcywhn[:, 2:].astype(np.float64) / 2
    scale = np.array([size[1], size[0]], np.float64)
    low, high = np.maximum(center - half, 0) * scale, np.minimum(center + half, 1) * scale
    if is_axis_aligned(matrix):
        gain, shift = matrix.diagonal()[:2], matrix[:2, 2]
        before = np.concatenate([low * gain + shift, high * gain + shift], 1)
    else:
        corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
        moved = _transform_points(matrix, corners)
        before = np.concatenate([moved.min(1), moved.max(1)], 1)
    after = np.minimum(np.maximum(before, 0), np.array([canvas[1], canvas[0]] * 2, np.float64))
    w, h = (after[:, 2:] - after[:, :2]).T
    area = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
    aspect = np.maximum(w, h) / np.maximum(np.minimum(w, h), 1e-9)
    keep = (w > MIN_SIDE) & (h > MIN_SIDE) & (w * h > MIN_VISIBLE * area) & (aspect < MAX_ASPECT)
    return after.astype(np.float32), keep


def flip_boxes(xyxy: Float32[np.ndarray, "n 4"], canvas: Size, *, up: bool, left: bool) -> Float32[np.ndarray, "n 4"]:
    """Flip boxes (pixels) vertically (`up`), horizontally (`left`), both or neither."""
    height, width = canvas
    if left:
        xyxy = np.stack([width - xyxy[:, 2], xyxy[:, 1], width - xyxy[:, 0], xyxy[:, 3]], 1)
    if up:
        xyxy = np.stack([xyxy[:, 0], height - xyxy[:, 3], xyxy[:, 2], height - xyxy[:, 1]], 1)
    return xyxy


def mixup_ratio(random: np.random.Generator) -> float:
    """The first image's weight in a blend of two, drawn from Beta(32, 32) (Zhang et al. 2018, mixup, equation 2)."""
    return float(random.beta(32.0, 32.0))


def _translation(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def is_axis_aligned(matrix: Matrix) -> bool:
    """Whether a matrix only scales and moves. `draw_tile` then replaces pixels; otherwise it blends edges with them."""
    (x, shear_x, _), (shear_y, y, _), (perspective_x, perspective_y, _) = matrix.tolist()
    return not (shear_x or shear_y or perspective_x or perspective_y) and x > 0 and y > 0


def _transform_points(matrix: Matrix, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved / (points @ matrix[2, :2] + matrix[2, 2])[..., None]


def _edges(matrix: Matrix, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of an axis-aligned image on the canvas, in whole pixels."""
    left, top = matrix[0, 2], matrix[1, 2]
    return round(left), round(top), round(left + matrix[0, 0] * size[1]), round(top + matrix[1, 1] * size[0])


def _bounds(matrix: Matrix, size: Size) -> tuple[float, float, float, float]:
    height, width = size
    moved = _transform_points(matrix, np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]]))
    return float(moved[:, 0].min()), float(moved[:, 1].min()), float(moved[:, 0].max()), float(moved[:, 1].max())


def _draw_axis_aligned(
    canvas: UInt8[np.ndarray, "ch cw 3"], image: UInt8[np.ndarray, "h w 3"], edges: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = edges
    rows = _visible_range(top, bottom, canvas.shape[0], image.shape[0])
    columns = _visible_range(left, right, canvas.shape[1], image.shape[1])
    if rows is None or columns is None:
        return
    (y1, y2), (read_y1, read_y2), (drawn_y1, drawn_y2) = rows
    (x1, x2), (read_x1, read_x2), (drawn_x1, drawn_x2) = columns
    source = image[read_y1:read_y2, read_x1:read_x2]
    part = canvas[y1:y2, x1:x2]
    size = (drawn_x2 - drawn_x1, drawn_y2 - drawn_y1)
    if size == (x2 - x1, y2 - y1):
        cv2.resize(source, size, dst=part, interpolation=cv2.INTER_LINEAR)
    else:
        drawn = cv2.resize(source, size, interpolation=cv2.INTER_LINEAR)
        part[:] = drawn[y1 - drawn_y1 : y2 - drawn_y1, x1 - drawn_x1 : x2 - drawn_x1]


def _visible_range(
    low: int, high: int, limit: int, pixels: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Along one axis: the part of the canvas to fill, the image pixels to read, and the canvas range they map to.

    Whole image pixels are read, and their edges are rounded to whole canvas pixels, by half a pixel at most.
    """
    first, last = max(low, 0), min(high, limit)
    if first >= last:
        return None
    gain = (high - low) / pixels
    read_first = max(math.floor((first - low) / gain), 0)
    read_last = min(math.ceil((last - low) / gain), pixels)
    drawn_first = min(low + round(read_first * gain), first)
    drawn_last = max(low + round(read_last * gain), last)
    return (first, last), (read_first, read_last), (drawn_first, drawn_last)
