"""Files that are not what they seem: reported, skipped, and the rest goes on."""

import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from tests.inference.conftest import Runner, picture, save_picture
from yolo_cli.inference.prefetch import Budget
from yolo_cli.inference.sources.frames import Source
from yolo_cli.inference.sources.images import expected_bytes


def huge_png(path: Path, side: int) -> None:
    """A grey image of side × side pixels, whose file is small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = b"\0" + b"\x80" * side
    body = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    whole = save_picture(folder / "good.jpg", 240, 320).read_bytes()
    png = save_picture(folder / "good.png", 240, 320).read_bytes()
    bad = {
        "empty.jpg": b"",
        "text.jpg": b"this is a text\n" * 20,
        "half.jpg": whole[: len(whole) // 2],
        "half.png": png[: len(png) // 2],
        "header.jpg": whole[:40],
        "magic.png": png[:8],
        "noise.webp": bytes(range(256)) * 8,
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    save_picture(folder / "one.png", 1, 1)
    done = run(folder)
    reported = {Path(line.partition(": skipped: ")[0]).name for line in done.ears.warned}
    # OpenCV decodes what is there of a PNG; whether half a picture counts is its decoder's verdict.
    assert reported >= set(bad) - {"half.png"} | {"one.png"}
    assert done.summary.skipped == len(done.ears.warned)
    assert {"good.jpg", "good.png"} <= done.files
    assert all("\n" not in line and "Traceback" not in line for line in done.ears.warned)


def test_kinds_of_pixels(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    grey = picture()[..., 0]
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "deep.png"), picture().astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "clear.png"), np.dstack([picture(), np.full((48, 64), 9, np.uint8)]))
    cmyk = np.dstack([picture(), grey])
    (folder / "cmyk.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(cmyk), colorspace="CMYK"))
    done = run(folder)
    assert done.ears.warned == []
    for name in ("grey.png", "deep.png", "clear.png", "cmyk.jpg"):
        assert cv2.imread(str(done.folder / name), cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)


def test_a_picture_taken_with_a_turned_camera(run: Runner, tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    done = run(tmp_path / "a.jpg", json=True)
    assert '"width": 48, "height": 64' in done.lines[0]
    assert cv2.imread(str(done.folder / "a.jpg")).shape == (64, 48, 3)


def test_a_picture_of_a_hundred_megapixels(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    huge_png(folder / "huge.png", 10_000)
    save_picture(folder / "small.jpg")
    source = Source("image", "huge", Path("huge.png"), folder / "huge.png")
    assert expected_bytes(source) == 3 * 10_000**2
    done = run(folder, nosave=True, save_txt=True, json=True)
    assert done.ears.warned == []
    assert '"width": 10000, "height": 10000' in done.lines[0]


@pytest.mark.parametrize("sizes", [[5, 5, 5], [20, 1], [0, 0]])
def test_a_picture_larger_than_the_budget_passes_alone(sizes: list[int]) -> None:
    budget = Budget(10)
    for size in sizes:
        taken = budget.claim(size)
        budget.release(taken)
    assert not budget.starved


def test_a_picture_that_was_packed_tighter_than_guessed_counts_in_full() -> None:
    budget = Budget(10)
    budget.claim(2)
    budget.grow(20)
    following = threading.Thread(target=budget.claim, args=(1,), daemon=True)
    following.start()
    following.join(0.1)
    assert following.is_alive()
    budget.release(22)
    following.join(5)
    assert not following.is_alive()
