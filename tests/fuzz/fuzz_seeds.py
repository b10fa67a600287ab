"""Inputs to mutate: valid files made here, the corpus of earlier findings, and for long runs real files."""

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import fuzz_pickles
import numpy as np
from fuzz_targets import SMALL_CFG

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"

DATA = b"""path: .
train: images
val: [images/b, list.txt]
names: {0: a, 1: "b"}
"""
DATA_MORE = b"""train: list.txt
test: ../images
nc: 2
names: [a, b]
val_fallback: train
sha256:
download: http://127.0.0.1:9/a.zip
"""
ARCHITECTURE = b"""nc: 2
depth_multiple: 0.33
width_multiple: 0.5
activation: nn.LeakyReLU(0.1)
anchors:
  - [10, 13, 16, 30]
  - [30, 61, 62, 45]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 3, C3, [16]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 1], 1, Concat, [1]]
  - [[5, 3], 1, Detect, [nc, anchors]]
"""
HYP = (
    b"lr0: 0.01\nmomentum: 0.9\nnominal_batch: 64\nanchor_t: 4.0\nmosaic: 1.0\nhsv_h: 0.015\nloss_ota: 0\niou_t: 0.2\n"
)
CFG = (
    SMALL_CFG.encode()
    + b"""[route]
layers=-3
groups=2
group_id=1
[upsample]
stride=2
[maxpool]
size=2
stride=2
[shortcut]
from=-3
activation=mish
[dropout]
probability=.5
[convolutional]
filters=7
activation=logistic
[yolo]
mask=0
anchors=10,14, 23,27
classes=2
scale_x_y=2
new_coords=1
"""
)


def _labels() -> list[bytes]:
    return [
        b"\x02" + text
        for text in (
            b"0 0.5 0.5 0.2 0.3\n1 0.25 0.25 0.1 0.1\n",
            b"\xef\xbb\xbf2 0.1 0.2 0.5 0.3 0.3 0.8\r\n\r\n1 5e-1 .5 1.00001 1.0",
            b"1 1_0 nan inf -0.00001\n0 0 0 0 0\n",
        )
    ]


def _weights() -> list[bytes]:
    numbers = np.linspace(0, 1, 4 * 4 + 4 * 3 * 9 + 7 + 7 * 4, dtype="<f4").tobytes()
    whole = [struct.pack("<3iq", 0, 2, 5, 9) + numbers, struct.pack("<3ii", 0, 1, 0, 9) + numbers]
    return [b"w" + file for file in whole] + [b"b" + whole[0][: 20 + 4 * (16 + 108)]]


def _archives() -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("images/train/a.jpg", b"x" * 50)
            archive.writestr("labels/", b"")
        found.append(out.getvalue())
    for mode, form in (("w", tarfile.USTAR_FORMAT), ("w", tarfile.PAX_FORMAT), ("w:gz", tarfile.GNU_FORMAT)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=form) as tape:  # type: ignore[call-overload]
            for name in ("images/" + "é" * 20 + ".jpg", "labels/a.txt"):
                info = tarfile.TarInfo(name)
                info.size = 50
                tape.addfile(info, io.BytesIO(b"x" * 50))
        found.append(out.getvalue())
    return found


def _images() -> list[bytes]:
    y, x = np.mgrid[0:64, 0:64]
    picture = np.stack([x * 4, y * 4, x + y], -1).astype(np.uint8)
    suffixes = (".jpg", ".png", ".bmp", ".tiff", ".webp", ".ppm", ".gif", ".avif", ".hdr", ".ras", ".pam", ".jp2")
    tried = [cv2.imencode(suffix, picture) for suffix in suffixes if cv2.haveImageWriter(f"a{suffix}")]
    found = [data.tobytes() for done, data in tried if done]
    jpeg = found[0]
    tiff = b"II" + struct.pack("<HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    found.append(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:])
    found.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    found.append(cv2.imencode(".png", picture.astype(np.uint16) * 257)[1].tobytes())
    return found


_CRAFTED: dict[str, Callable[[], list[bytes]]] = {
    "labels": _labels,
    "data-yaml": lambda: [DATA, DATA_MORE],
    "architecture-yaml": lambda: [ARCHITECTURE],
    "hyp-yaml": lambda: [HYP],
    "darknet-cfg": lambda: [SMALL_CFG.encode(), CFG],
    "darknet-weights": _weights,
    "pickle": fuzz_pickles.seeds,
    "archives": _archives,
    "images": _images,
}
# Reference data and files of this repository: (folder, pattern, maximum number of files, maximum bytes of a file).
_REAL = {
    "labels": ("REFERENCE/datasets/coco128/labels", "**/*.txt", 30, 20_000),
    "data-yaml": ("data", "*.yaml", 9, 20_000),
    "architecture-yaml": ("models", "*.yaml", 99, 2_600),
    "hyp-yaml": ("data/hyp", "*.yaml", 9, 20_000),
    "darknet-cfg": ("REFERENCE/weights", "*.cfg", 9, 4_000),
    "images": ("REFERENCE/datasets/coco128/images", "**/*.jpg", 4, 60_000),
}


@cache
def valid(name: str) -> list[bytes]:
    """Small valid files of a target."""
    return _CRAFTED[name]()


def crafted(name: str) -> list[bytes]:
    """The valid files and the earlier findings."""
    return valid(name) + [path.read_bytes() for path in found_cases(name)]


def found_cases(name: str) -> list[Path]:
    """Inputs that once caused an error."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())


def real(name: str) -> list[bytes]:
    """Real files, if available. Only small ones, because larger inputs slow the search down."""
    reference = os.environ.get("YOLO_REFERENCE_DIR", "")
    if name not in _REAL:
        return []
    folder, pattern, most, size = _REAL[name]
    if "REFERENCE" in folder and not reference:
        return []
    files = sorted((ROOT / folder.replace("REFERENCE", reference)).glob(pattern))
    small = [path for path in files if path.stat().st_size <= size][:most]
    first = b"\x4f" if name == "labels" else b""  # 80 classes
    return [first + path.read_bytes() for path in small]
