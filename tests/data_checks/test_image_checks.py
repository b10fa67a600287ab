"""Duplicates, leaks, frames, light, sharpness and EXIF orientation."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data_checks.conftest import Dataset, photo
from yolo_cli.data_checks.exif import as_stored_to_displayed
from yolo_cli.data_checks.similar_images import similar_pairs


def test_an_image_in_two_splits_is_an_error(dataset: Dataset) -> None:
    shutil.copy(dataset.image("train", "3.jpg"), dataset.image("val", "other.jpg"))
    dataset.label("val", "other.jpg", *dataset.rows)
    for images in (True, False):
        (finding,) = dataset.check(images=images).findings
        assert (finding.code, finding.severity, finding.split, finding.count) == ("leak", "error", "train, val", 1)
        assert finding.items[0].file.endswith("train/3.jpg")
        assert finding.items[0].other.endswith("val/other.jpg")


def test_a_leak_with_other_metadata_is_found_by_its_pixels(dataset: Dataset) -> None:
    data = dataset.image("train", "3.jpg").read_bytes()
    comment = b"\xff\xfe\x00\x07hello"
    dataset.image("val", "other.jpg").write_bytes(data[:2] + comment + data[2:])
    dataset.label("val", "other.jpg", *dataset.rows)
    assert [finding.code for finding in dataset.check().findings] == ["leak"]


def test_the_same_folder_as_train_and_val(dataset: Dataset) -> None:
    dataset.spec.write_text("path: .\ntrain: images/train\nval: images/train\nnames: [cat, dog]\n")
    assert [(f.code, f.count) for f in dataset.check().findings] == [("leak", 12)]


def test_an_image_twice_in_a_split(dataset: Dataset) -> None:
    shutil.copy(dataset.image("train", "3.jpg"), dataset.image("train", "other.jpg"))
    dataset.label("train", "other.jpg", dataset.rows[0])
    (finding,) = dataset.check().findings
    assert (finding.code, finding.count, finding.items[0].detail) == ("duplicate-images", 1, "their labels differ")


CHANGES = {
    "re-encoded": lambda image: image,
    "smaller": lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.7, fy=1.7),
    "brighter": lambda image: np.clip(image * 1.3 + 10, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_are_found(dataset: Dataset, change: str) -> None:
    for i in (2, 3, 5):
        file = dataset.add("val", f"copy{i}.jpg", CHANGES[change](photo(i)))
        cv2.imwrite(str(file), CHANGES[change](photo(i)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    (finding,) = dataset.check().findings
    assert (finding.code, finding.severity, finding.split, finding.count) == ("near-duplicate", "warning", "val", 3)
    assert all(f"/{i}.jpg" in item.other for i, item in zip((2, 3, 5), finding.items, strict=True))


def test_frames_of_a_scene_over_splits(dataset: Dataset) -> None:
    scene = photo(77, 120, 260)
    for i in range(8):
        dataset.add(("train", "val")[i % 2], f"frame{i}.jpg", scene[:, 2 * i : 2 * i + 200])
    (finding,) = dataset.find("video-frames")
    assert finding.items[0].detail == "8 similar images: 4 in train, 4 in val"


def test_many_images_of_a_fixed_camera_take_no_time() -> None:
    base = np.random.default_rng(0).integers(0, 256, (32, 32))
    thumbs = np.clip(base + np.random.default_rng(1).normal(0, 3, (800, 32, 32)), 0, 255).astype(np.uint8)
    a, _, _, _ = similar_pairs(thumbs, np.ones(800, dtype=bool), [f"{i:05}" for i in range(800)])
    assert len(a) < 100 * 800
    assert len(np.unique(a)) > 750


def test_dark_blurred_and_uniform_images(dataset: Dataset) -> None:
    dataset.add("train", "dark.jpg", (photo(201) * 0.15).astype(np.uint8))
    dataset.add("train", "blurred.jpg", cv2.GaussianBlur(photo(202, 480, 640), (0, 0), 12))
    dataset.add("val", "uniform.jpg", np.full((100, 100, 3), 90, np.uint8))
    found = {finding.code: finding.items[0].file.rsplit("/", 1)[1] for finding in dataset.check().findings}
    assert found == {"dark": "dark.jpg", "blurred": "blurred.jpg", "uniform": "uniform.jpg"}


def turned(dataset: Dataset, name: str, seed: int, *, follows: bool) -> None:
    """An image with an EXIF turn and a bright object, and its box in the displayed or in the stored pixels."""
    stored = photo(seed, 120, 200)
    stored[20:60, 20:100] = (20, 20, 250)
    box = np.array([[60 / 200, 40 / 120, 80 / 200, 40 / 120]], np.float32)
    file = dataset.image("train", name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored[:, :, ::-1]).save(file, exif=exif, quality=95)
    x, y, w, h = (as_stored_to_displayed(box, 6) if follows else box)[0]
    dataset.label("train", name, f"0 {x} {y} {w} {h}")


@pytest.mark.parametrize("count", [1, 6])
def test_labels_that_ignore_the_orientation(dataset: Dataset, count: int) -> None:
    for i in range(count):
        turned(dataset, f"turned{i}.jpg", 300 + i, follows=False)
    (finding,) = dataset.check().findings
    assert (finding.code, finding.count) == ("exif-turn", count)


@pytest.mark.parametrize("count", [1, 6])
def test_labels_that_follow_the_orientation(dataset: Dataset, count: int) -> None:
    for i in range(count):
        turned(dataset, f"turned{i}.jpg", 300 + i, follows=True)
    assert dataset.check().findings == ()
