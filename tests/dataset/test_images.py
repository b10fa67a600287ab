import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from yolo_cli.dataset import image_header
from yolo_cli.dataset.image_header import BadImage, check_claims, image_size
from yolo_cli.dataset.images import PAD_VALUE, letterbox, read_image
from yolo_cli.errors import UserError


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth RGB picture without symmetries."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)


def encoded(suffix: str, rgb: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, rgb[:, :, ::-1] if rgb.ndim == 3 else rgb, options)[1].tobytes()


def with_orientation(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


# What a viewer does for each orientation.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_exif_orientation(orientation: int, order: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    jpeg = encoded(".jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 100)
    file.write_bytes(jpeg)
    expected = SHOWN[orientation](read_image(file))
    file.write_bytes(with_orientation(jpeg, orientation, order))
    np.testing.assert_array_equal(read_image(file), expected)
    assert image_size(str(file)) == expected.shape[:2]
    np.testing.assert_array_equal(cv2.imread(str(file))[:, :, ::-1], expected)  # an independent implementation


def test_jpeg_decodes_as_libjpeg_does_by_default(reference: Path) -> None:
    for file in sorted((reference / "datasets" / "coco128" / "images" / "val2017").glob("*.jpg"))[:12]:
        np.testing.assert_array_equal(read_image(file), cv2.imread(str(file))[:, :, ::-1])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_lossless_formats(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encoded(suffix, picture(), *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ())))
    assert image_size(str(file)) == (48, 64)
    np.testing.assert_array_equal(read_image(file), picture())


def test_16_bit_gray_and_transparent_images_become_8_bit_rgb(tmp_path: Path) -> None:
    rgb = picture()
    kinds = {
        "16-bit": (rgb[:, :, ::-1].astype(np.uint16) * 257, rgb),
        "alpha": (np.dstack([rgb[:, :, ::-1], np.full(rgb.shape[:2], 7, np.uint8)]), rgb),
        "gray": (rgb[:, :, 0], np.repeat(rgb[:, :, :1], 3, 2)),
        "16-bit gray": (rgb[:, :, 0].astype(np.uint16) * 257, np.repeat(rgb[:, :, :1], 3, 2)),
    }
    for name, (pixels, expected) in kinds.items():
        file = tmp_path / f"{name}.png"
        cv2.imwrite(str(file), pixels)
        assert image_size(str(file)) == (48, 64), name
        np.testing.assert_array_equal(read_image(file), expected, err_msg=name)
    cv2.imwrite(str(tmp_path / "gray.jpg"), rgb[:, :, 0])
    gray = read_image(tmp_path / "gray.jpg")
    assert gray.shape == (48, 64, 3)
    assert np.abs(gray.astype(int) - rgb[:, :, :1]).max() < 8


def test_cmyk_jpeg(tmp_path: Path) -> None:
    file = tmp_path / "cmyk.jpg"
    Image.fromarray(picture()).convert("CMYK").save(file, quality=95)
    assert image_size(str(file)) == (48, 64)
    assert np.abs(read_image(file).astype(int) - picture()).mean() < 4


def broken_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg, png = encoded(".jpg", noise), encoded(".png", noise)
    return {
        "zero bytes": b"",
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated by two bytes": jpeg[:-2],
        "JPEG header only": jpeg[:12],
        "truncated in a thumbnail": with_orientation(jpeg, 1)[:30],
        "truncated PNG": png[: len(png) // 2],
        "PNG signature": png[:8],
        "text": b"<html>not an image</html>",
        "two by two": encoded(".png", noise[:2, :2]),
        "absurd size": png[:16] + struct.pack(">II", 2**20, 2**20) + png[24:],
    }


@pytest.mark.parametrize("kind", broken_files())
def test_broken_files_are_detected(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(broken_files()[kind])
    with pytest.raises(BadImage):
        image_size(str(file))
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image"):
        read_image(file)


CHECKED = ["png", "bmp", "tiff", "webp", "ppm", "pgm", "pbm", "gif", "avif", "ras", "jp2", "hdr"]
REFUSED = ["pam", "pfm"]  # in color, which Pillow does not read


def written(suffix: str) -> bytes:
    """An image of 96×80 pixels as OpenCV writes it, or a skip where this OpenCV does not."""
    rgb = picture(80, 96)
    pixels = {"pgm": rgb[:, :, 0], "pbm": rgb[:, :, 0], "pfm": rgb.astype(np.float32)}.get(suffix, rgb)
    try:
        return encoded(f".{suffix}", pixels)
    except cv2.error:
        pytest.skip("this OpenCV does not write it")


@pytest.mark.parametrize("suffix", CHECKED)
def test_the_size_is_checked_before_decoding(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(suffix)
    check_claims(data)
    monkeypatch.setattr(image_header, "MAX_PIXELS", 80 * 96 - 1)
    with pytest.raises(BadImage, match="96×80 pixels"):
        check_claims(data)


@pytest.mark.parametrize(("width", "accepted"), [(96, True), (2**24, False)])
def test_the_size_in_an_openexr_header_is_checked(width: int, accepted: bool) -> None:
    """Written by hand: OpenCV reads OpenEXR where it is enabled, but not every build writes it."""
    window = b"dataWindow\0box2i\0" + struct.pack("<I4i", 16, 0, 0, width - 1, 79)
    data = b"v/1\x01\x02\0\0\0channels\0chlist\0" + struct.pack("<I", 1) + b"\0" + window
    if accepted:
        check_claims(data)
    else:
        with pytest.raises(BadImage, match="16777216×80 pixels"):
            check_claims(data)


@pytest.mark.parametrize("suffix", REFUSED)
def test_a_format_whose_size_cannot_be_checked_is_not_decoded(suffix: str) -> None:
    data = written(suffix)
    with pytest.raises(BadImage, match="not an image that can be read"):
        check_claims(data)


@pytest.mark.parametrize("suffix", ["bmp", "tiff"])
def test_an_image_beyond_pillows_own_limit_is_accepted(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    check_claims(written(suffix))


def test_data_after_the_end_marker_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(".jpg", picture()) + b"camera's own data" * 100)
    assert image_size(str(file)) == (48, 64)
    assert read_image(file).shape == (48, 64, 3)


def test_size_after_a_large_header(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", picture())
    profile = b"\xff\xe2" + struct.pack(">H", 60002) + bytes(60000)
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg[:2] + profile * 3 + jpeg[2:])
    assert image_size(str(file)) == (48, 64)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II", b"\x89PNG\r\n\x1a\n"]),
)
def test_any_bytes_are_an_image_or_a_bad_image(tail: bytes, head: bytes) -> None:
    file = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / "yolo_cli_any_bytes"
    try:
        file.write_bytes(head + tail)
        with pytest.raises((BadImage, OSError)):
            image_size(str(file))
        with pytest.raises(UserError):
            read_image(file)
    finally:
        file.unlink()


@pytest.mark.parametrize("orientation", [1, 6])
def test_reading_at_reduced_size_keeps_the_content(orientation: int, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(with_orientation(encoded(".jpg", picture(480, 640)), orientation))
    full = read_image(file)
    small = read_image(file, (100, 100))
    assert min(small.shape[:2]) >= 100
    assert small.shape[0] * small.shape[1] < full.shape[0] * full.shape[1] / 4
    again = cv2.resize(small, full.shape[1::-1])
    assert np.abs(again.astype(int) - full).mean() < 3
    assert read_image(file, (479, 479)).shape == full.shape


@given(
    st.tuples(st.integers(4, 90), st.integers(4, 90)),
    st.tuples(st.integers(32, 128), st.integers(32, 128)),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_letterbox_maps_back_to_the_image(size: tuple[int, int], canvas: tuple[int, int], point: list[float]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    out, mapping = letterbox(image, canvas)
    assert out.shape == (*canvas, 3)
    assert (mapping.height, mapping.width) == size
    x, y = point[0] * size[1], point[1] * size[0]
    on_x, on_y = x * mapping.scale_x + mapping.pad_x, y * mapping.scale_y + mapping.pad_y
    assert -1e-6 <= on_x <= canvas[1] + 1e-6
    assert -1e-6 <= on_y <= canvas[0] + 1e-6
    assert (on_x - mapping.pad_x) / mapping.scale_x == pytest.approx(x, abs=1e-6)
    # The image covers exactly the rectangle that the numbers describe.
    left, top = round(mapping.pad_x), round(mapping.pad_y)
    right, bottom = round(mapping.pad_x + size[1] * mapping.scale_x), round(mapping.pad_y + size[0] * mapping.scale_y)
    expected = np.full((*canvas, 3), PAD_VALUE, np.uint8)
    expected[top:bottom, left:right] = 200
    np.testing.assert_array_equal(out, expected)
    assert right - left == canvas[1] or bottom - top == canvas[0]
    assert abs((canvas[1] - right) - left) <= 1
    assert abs((canvas[0] - bottom) - top) <= 1


def test_letterbox_fit_only_adds_borders() -> None:
    out, mapping = letterbox(picture(480, 640), (512, 672), (640, 640))
    assert (mapping.scale_x, mapping.pad_x, mapping.pad_y) == (1.0, 16.0, 16.0)
    np.testing.assert_array_equal(out[16:496, 16:656], picture(480, 640))


def test_png_orientation_after_a_long_chunk(tmp_path: Path) -> None:
    """The index and the reader must find the same orientation, however late it is in the file."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((90, 130, 3), np.uint8))
    data = path.read_bytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    extra = chunk(b"prIv", bytes(6000)) + chunk(b"eXIf", exif)
    path.write_bytes(data[:33] + extra + data[33:])
    assert image_size(str(path)) == (130, 90)
    assert read_image(path).shape == (130, 90, 3)
