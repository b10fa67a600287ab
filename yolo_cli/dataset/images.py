"""Image files to RGB pixels, and onto a canvas."""

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

PAD_VALUE = 114  # gray, where no image covers the canvas

Image = UInt8[np.ndarray, "h w 3"]

_IGNORE_ORIENTATION = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path, min_size: tuple[int, int] | None = None) -> Image:
    """The pixels of an image file as displayed: RGB, 8 bits; gray, 16-bit, CMYK and transparent images are converted.

    With `min_size` (height, width) the result may be smaller than the file by a whole factor, but not below `min_size`,
    and chroma is interpolated faster and less exactly. That suits augmentation, not validation; without it, JPEGs
    decode exactly as libjpeg does by default. Raises UserError for a file that is missing, cut off or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None
    return decode_image(data, path, min_size)


def decode_image(
    data: bytes, path: Path | str, min_size: tuple[int, int] | None = None, flaws: list[str] | None = None
) -> Image:
    """Decode the content of an image file as `read_image` does; errors name `path`.

    Damage that leaves an image with wrong or missing pixels is added to `flaws`.
    """
    if data.startswith(b"\xff\xd8"):
        orientation = jpeg_orientation(data)
        size = min_size[::-1] if min_size and orientation in SWAPS_AXES else min_size
        image = _decode_jpeg(data, path, size, [] if flaws is None else flaws)
    elif data.startswith(b"\x89PNG"):
        orientation, image = png_orientation(data), _decode_other(data, path, _IGNORE_ORIENTATION)
    else:
        orientation, image = 1, _decode_other(data, path, cv2.IMREAD_COLOR)
    if orientation != 1:
        image = _apply_orientation(image, orientation)
    return image if min_size is None else shrink(image, min_size)


def shrink(image: Image, min_size: tuple[int, int]) -> UInt8[np.ndarray, "nh nw 3"]:
    """Shrink an image by the largest whole factor that keeps it at or above `min_size` (height, width)."""
    height, width = image.shape[:2]
    factor = min(height // max(min_size[0], 1), width // max(min_size[1], 1))
    if factor < 2:
        return image
    return cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def letterbox(
    image: Image, canvas: tuple[int, int], fit: tuple[int, int] | None = None
) -> tuple[UInt8[np.ndarray, "ch cw 3"], Letterbox]:
    """Scale an image to fit `canvas` (height, width), keeping its aspect ratio, and center it on gray (114).

    With `fit` the image is scaled to fit that size instead, and the canvas only adds borders. Shrinking averages areas,
    to avoid aliasing; enlarging interpolates linearly.
    """
    height, width = image.shape[:2]
    new_height, new_width = fitted_size((height, width), fit or canvas)
    if (new_height, new_width) != (height, width):
        interpolation = cv2.INTER_AREA if new_height < height or new_width < width else cv2.INTER_LINEAR
        image = cv2.resize(image, (new_width, new_height), interpolation=interpolation)
    top, left = (canvas[0] - new_height) // 2, (canvas[1] - new_width) // 2
    out = np.full((*canvas, 3), PAD_VALUE, np.uint8)
    out[top : top + new_height, left : left + new_width] = image
    return out, Letterbox(height, width, new_width / width, new_height / height, float(left), float(top))


def fitted_size(size: tuple[int, int], fit: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of an image of `size` scaled to fit into `fit`."""
    gain = min(fit[0] / size[0], fit[1] / size[1])
    return max(round(size[0] * gain), 1), max(round(size[1] * gain), 1)


def _decode_jpeg(data: bytes, path: Path | str, min_size: tuple[int, int] | None, flaws: list[str]) -> Image:
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, LookupError):  # LookupError: the header is cut off before the color space
        raise _unreadable(path, "broken JPEG header") from None
    try:
        check_size(height, width)
    except BadImage as error:
        raise _unreadable(path, str(error)) from None
    # A camera may append its own data after the end marker, but a file without any was cut off.
    if not data.endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") < data.find(b"\xff\xda"):
        raise _unreadable(path, "it ends before its end marker")
    if colors in ("CMYK", "YCCK"):
        return _decode_other(data, path, _IGNORE_ORIENTATION)
    fast: dict[str, int | bool] = {}
    if min_size is not None:
        # libjpeg-turbo has no vector code for factors below 2, so they cost more time than they save.
        fast = {"min_height": min_size[0], "min_width": min_size[1], "min_factor": 2}
        fast |= {"fastupsample": True, "fastdct": True}
    try:
        return simplejpeg.decode_jpeg(data, **fast)
    except ValueError as error:
        flaws.append(str(error))
    try:  # with a flaw that every viewer ignores, such as stray bytes between segments
        return simplejpeg.decode_jpeg(data, strict=False, **fast)
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


def _apply_orientation(image: Image, orientation: int) -> UInt8[np.ndarray, "nh nw 3"]:
    """Rotate and flip an image as its EXIF orientation 2 … 8 requires (Exif 2.32, tag 0x0112)."""
    if orientation in SWAPS_AXES:
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])
