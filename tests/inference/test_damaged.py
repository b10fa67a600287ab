"""Damaged and unusual files are reported and skipped, and the others are read."""

import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from tests.inference.conftest import Runner, make_image, save_image
from yolo_cli.inference import pipeline
from yolo_cli.inference.prefetch import Prefetch
from yolo_cli.inference.sources.frames import Source
from yolo_cli.inference.sources.images import expected_bytes


def huge_png(path: Path, side: int) -> None:
    """A gray image of side × side pixels in a small file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = b"\0" + b"\x80" * side
    body = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_damaged_files_are_reported_and_the_others_are_read(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    whole = save_image(folder / "good.jpg", 240, 320).read_bytes()
    png = save_image(folder / "good.png", 240, 320).read_bytes()
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
    save_image(folder / "one.png", 1, 1)
    done = run(folder)
    reported = {Path(line.partition(": skipped: ")[0]).name for line in done.messages.warnings}
    # OpenCV may decode the part of a PNG that is there.
    assert reported >= set(bad) - {"half.png"} | {"one.png"}
    assert done.summary.skipped == len(done.messages.warnings)
    assert {"good.jpg", "good.png"} <= done.files
    assert all("\n" not in line and "Traceback" not in line for line in done.messages.warnings)


def test_gray_16_bit_rgba_and_cmyk_images(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray = make_image()[..., 0]
    cv2.imwrite(str(folder / "gray.png"), gray)
    cv2.imwrite(str(folder / "deep.png"), make_image().astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "clear.png"), np.dstack([make_image(), np.full((48, 64), 9, np.uint8)]))
    cmyk = np.dstack([make_image(), gray])
    (folder / "cmyk.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(cmyk), colorspace="CMYK"))
    done = run(folder)
    assert done.messages.warnings == []
    for name in ("gray.png", "deep.png", "clear.png", "cmyk.jpg"):
        assert cv2.imread(str(done.folder / name), cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)


def test_exif_orientation(run: Runner, tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", make_image())[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    done = run(tmp_path / "a.jpg", json=True)
    assert '"width": 48, "height": 64' in done.lines[0]
    assert cv2.imread(str(done.folder / "a.jpg")).shape == (64, 48, 3)


def test_an_image_of_100_megapixels(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    huge_png(folder / "huge.png", 10_000)
    save_image(folder / "small.jpg")
    source = Source("image", "huge", Path("huge.png"), folder / "huge.png")
    assert expected_bytes(source) == 3 * 10_000**2
    done = run(folder, nosave=True, save_txt=True, json=True)
    assert done.messages.warnings == []
    assert '"width": 10000, "height": 10000' in done.lines[0]


@pytest.mark.parametrize("sizes", [[5, 5, 5], [20, 1], [0, 0]])
def test_an_image_larger_than_the_memory_limit_passes_alone(sizes: list[int]) -> None:
    prefetch = Prefetch(1, memory=10)
    for size in sizes:
        prefetch.release(prefetch.reserve(size))
    assert not prefetch.needs_memory


@pytest.mark.timeout(60)
def test_memory_of_written_images_is_free_for_the_next(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing a large PNG takes longer than detecting: all memory is then held by images that are being written."""
    monkeypatch.setattr(pipeline, "MEMORY", 5 * 600 * 600 * 3)  # two images, drawn copies included
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), noise)
    assert run(tmp_path / "in").summary.images == 6


def test_an_image_larger_than_estimated_counts_in_full() -> None:
    prefetch = Prefetch(1, memory=10)
    prefetch.reserve(2)
    prefetch.reserve_at_once(20)
    other = threading.Thread(target=prefetch.reserve, args=(1,), daemon=True)
    other.start()
    other.join(0.1)
    assert other.is_alive()
    assert prefetch.needs_memory
    prefetch.release(22)
    other.join(5)
    assert not other.is_alive()
