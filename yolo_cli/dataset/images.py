"""Image files to RGB pixels, and onto a canvas."""

import math
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from yolo_cli.batch import Letterbox
from yolo_cli.dataset.image_header import (
    SWAPS_AXES,
    BadImage,
    check_claims,
    check_size,
    jpeg_orientation,
    png_orientation,
)
from yolo_cli.errors import UserError

PAD_VALUE = 114  # of a canvas where no image lies

Image = UInt8[np.ndarray, "h w 3"]

_KEEP_TURN = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path, min_size: tuple[int, int] | None = None) -> Image:
    """The pixels of an image file as displayed: RGB, 8 bits; gray, 16-bit, CMYK and transparent images are converted.

    With `min_size` (height, width) the result may be smaller than the file by a whole factor, though not below
    `min_size`, and chroma is interpolated faster and coarser: right for augmentation, not for validation, where JPEGs
    decode exactly as libjpeg does by default. Raises UserError for a file that is missing, cut off or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None
    return decode_image(data, path, min_size)


def decode_image(data: bytes, path: Path | str, min_size: tuple[int, int] | None = None) -> Image:
    """The pixels of an image file's content, as `read_image` gives them; `path` is what an error names."""
    if data.startswith(b"\xff\xd8"):
        turn = jpeg_orientation(data)
        image = _decode_jpeg(data, path, min_size[::-1] if min_size and turn in SWAPS_AXES else min_size)
    elif data.startswith(b"\x89PNG"):
        turn, image = png_orientation(data), _decode_other(data, path, _KEEP_TURN)
    else:
        turn, image = 1, _decode_other(data, path, cv2.IMREAD_COLOR)
    if turn != 1:
        image = _turned(image, turn)
    return image if min_size is None else shrink(image, min_size)


def shrink(image: Image, min_size: tuple[int, int]) -> UInt8[np.ndarray, "nh nw 3"]:
    """The image made smaller by the largest whole factor that keeps it at or above `min_size` (height, width)."""
    height, width = image.shape[:2]
    factor = min(height // max(min_size[0], 1), width // max(min_size[1], 1))
    if factor < 2:
        return image
    return np.asarray(cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA))


def letterbox(
    image: Image, canvas: tuple[int, int], fit: tuple[int, int] | None = None
) -> tuple[UInt8[np.ndarray, "ch cw 3"], Letterbox]:
    """The image scaled to fit `canvas` (height, width), its proportions kept, in the middle of gray 114.

    `fit`, where it is given, is the size that the scale is chosen for, and the canvas only adds borders to it.
    Shrinking averages areas (as few artifacts as possible), enlarging interpolates linearly.
    """
    height, width = image.shape[:2]
    new_height, new_width = fitted_size((height, width), fit or canvas)
    if (new_height, new_width) != (height, width):
        smooth = cv2.INTER_AREA if new_height < height or new_width < width else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (new_width, new_height), interpolation=smooth))
    top, left = (canvas[0] - new_height) // 2, (canvas[1] - new_width) // 2
    out = np.full((*canvas, 3), PAD_VALUE, np.uint8)
    out[top : top + new_height, left : left + new_width] = image
    return out, Letterbox(height, width, new_width / width, new_height / height, float(left), float(top))


def fitted_size(size: tuple[int, int], fit: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of an image of `size` scaled to fit into `fit`."""
    gain = min(fit[0] / size[0], fit[1] / size[1])
    return max(round(size[0] * gain), 1), max(round(size[1] * gain), 1)


def _decode_jpeg(data: bytes, path: Path | str, min_size: tuple[int, int] | None) -> Image:
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, LookupError):  # simplejpeg looks up what a file that is cut off in its header does not say
        raise _unreadable(path, "broken JPEG header") from None
    try:
        check_size(height, width)
    except BadImage as error:
        raise _unreadable(path, str(error)) from None
    # What follows the scan may be a camera's own data, but a file without any end marker was cut off.
    if not data.endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") < data.find(b"\xff\xda"):
        raise _unreadable(path, "it ends before its end marker")
    if colors in ("CMYK", "YCCK"):
        return _decode_other(data, path, _KEEP_TURN)
    fast: dict[str, int | bool] = {}
    if min_size is not None:
        # Factors below 2 cost more than they save: libjpeg-turbo has no vector code for them.
        fast = {"min_height": min_size[0], "min_width": min_size[1], "min_factor": 2, "fastupsample": True}
        fast = {**fast, "fastdct": True}
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, **fast))
    except ValueError:
        pass
    try:  # a flaw that every viewer passes over, such as stray bytes between segments
        return np.asarray(simplejpeg.decode_jpeg(data, strict=False, **fast))
    except ValueError as error:
        raise _unreadable(path, str(error)) from None


def _decode_other(data: bytes, path: Path | str, flags: int) -> Image:
    if not data:
        raise _unreadable(path, "zero bytes")
    try:
        check_claims(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise BadImage("no pixels can be decoded")
        check_size(*image.shape[:2])
    except BadImage as error:
        raise _unreadable(path, str(error)) from None
    except cv2.error:
        raise _unreadable(path, "no pixels can be decoded") from None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _unreadable(path: Path | str, why: str) -> UserError:
    return UserError(f"cannot be read as an image ({why})", where=path, fix="replace the file or remove it")


def _turned(image: Image, orientation: int) -> UInt8[np.ndarray, "nh nw 3"]:
    """Undo an EXIF orientation 2 … 8 (Exif 2.32, tag 0x0112)."""
    if orientation in SWAPS_AXES:
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def required_size(size: tuple[int, int], matrix: np.ndarray) -> tuple[int, int]:
    """How many pixels (height, width) an image of `size` should have to be drawn through `matrix` without loss."""
    along_x, along_y = (math.hypot(matrix[0, i], matrix[1, i]) / abs(matrix[2, 2]) for i in (0, 1))
    return max(math.ceil(size[0] * along_y), 1), max(math.ceil(size[1] * along_x), 1)
