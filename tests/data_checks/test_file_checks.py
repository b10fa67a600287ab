"""Files and label rows that cannot be used: each planted one is found, and nothing else."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data_checks.conftest import Dataset, photo


def test_a_sound_dataset_has_no_findings(dataset: Dataset) -> None:
    assert dataset.check().findings == ()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("0 0.5 0.5 0.2", "label-syntax"),
        ("cat 0.5 0.5 0.2 0.2", "label-syntax"),
        ("0 nan 0.5 0.2 0.2", "label-syntax"),
        ("0.5 0.5 0.5 0.2 0.2", "label-syntax"),
        ("0 1.5 0.5 0.2 0.2", "label-range"),
        ("0 0.5 0.5 -0.2 0.2", "label-range"),
        ("0 0.5 0.5 0.2 0", "label-range"),
        ("2 0.5 0.5 0.2 0.2", "label-class"),
        ("-3 0.5 0.5 0.2 0.2", "label-class"),
    ],
)
def test_bad_rows_are_errors_with_their_line(dataset: Dataset, row: str, code: str) -> None:
    file = dataset.label("train", "3.jpg", *dataset.rows, row)
    result = dataset.check()
    (finding,) = result.findings
    assert (finding.code, finding.severity, finding.count) == (code, "error", 1)
    assert (finding.items[0].file, finding.items[0].line) == (str(file), 3)
    assert result.status(strict=False) == 2


def test_a_repeated_row_is_a_warning(dataset: Dataset) -> None:
    dataset.label("train", "3.jpg", dataset.rows[0], dataset.rows[0])
    result = dataset.check()
    assert [finding.code for finding in result.findings] == ["duplicate-rows"]
    assert (result.status(strict=False), result.status(strict=True)) == (0, 1)


def test_images_that_cannot_be_read(dataset: Dataset) -> None:
    whole = dataset.image("train", "1.jpg").read_bytes()
    dataset.image("train", "1.jpg").write_bytes(b"")
    dataset.image("train", "2.jpg").write_bytes(dataset.image("train", "2.jpg").read_bytes()[:-300])
    dataset.image("train", "4.jpg").write_bytes(b"no image at all")
    dataset.image("train", "5.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")  # cut off, with an end marker
    (finding,) = dataset.find("unreadable-image")
    assert sorted(Path(item.file).name for item in finding.items) == ["1.jpg", "2.jpg", "4.jpg", "5.jpg"]
    (finding,) = dataset.find("unreadable-image", images=False)
    assert finding.count == 3  # the fourth needs its pixels


def test_damaged_data_is_a_warning(dataset: Dataset) -> None:
    data = bytearray(dataset.image("train", "1.jpg").read_bytes())
    for at in np.random.default_rng(0).integers(len(data) // 3, len(data) - 10, 20).tolist():
        data[at] = 77
    dataset.image("train", "1.jpg").write_bytes(data)
    (finding,) = [finding for finding in dataset.check().findings if finding.code != "blurred"]
    assert (finding.code, finding.severity) == ("damaged-image", "warning")


def test_labels_without_images(dataset: Dataset) -> None:
    orphan = dataset.label("train", "gone.jpg", dataset.rows[0])
    nested = dataset.label("val", "more/gone.jpg", dataset.rows[0])
    findings = dataset.find("label-without-image")
    assert [(f.split, f.items[0].file) for f in findings] == [("train", str(orphan)), ("val", str(nested))]


def test_text_files_beside_images_are_no_labels(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    for split in ("train", "val"):
        flat = tmp_path / "flat" / split
        flat.mkdir(parents=True)
        for kind in ("images", "labels"):
            for file in (dataset.root / kind / split).iterdir():
                shutil.copy(file, flat)
        (flat / "classes.txt").write_text("cat\ndog\n")
        (flat / "notes.txt").write_text("made in spring\n")
        (flat / f"gone-{split}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    dataset.spec.write_text(f"path: {tmp_path}/flat\ntrain: train\nval: val\nnames: [cat, dog]\n")
    findings = dataset.check().findings
    assert [(f.code, f.count) for f in findings] == [("label-without-image", 1)] * 2


def test_splits_that_cannot_be_opened_are_findings(dataset: Dataset) -> None:
    dataset.spec.write_text("path: .\ntrain: images/train\ntest: images/nowhere\nnames: [cat, dog]\n")
    result = dataset.check()
    assert [(f.code, f.split) for f in result.findings] == [("no-images", "test"), ("no-val", "val")]
    assert result.status(strict=False) == 2


def test_a_dataset_without_images(dataset: Dataset) -> None:
    shutil.rmtree(dataset.root / "images")
    for split in ("train", "val"):
        (dataset.root / "images" / split).mkdir(parents=True)
    for images in (True, False):
        assert [finding.code for finding in dataset.check(images=images).findings] == ["no-images"] * 2


def test_a_split_of_unreadable_images(dataset: Dataset) -> None:
    for file in (dataset.root / "images/val").iterdir():
        file.write_bytes(b"")
    (finding,) = dataset.check().findings
    assert (finding.code, finding.split, finding.count) == ("unreadable-image", "val", 10)


def test_one_image_and_odd_images(dataset: Dataset) -> None:
    shutil.rmtree(dataset.root / "images/val")
    shutil.rmtree(dataset.root / "labels/val")
    dataset.add("val", "one.png", photo(500))
    dataset.add("train", "long.jpg", photo(501, 10, 10_000))
    dataset.add("train", "gray.png", photo(502)[:, :, 0])
    dataset.add("train", "deep.png", photo(503).astype(np.uint16) * 257)
    dataset.add("train", "clear.png", cv2.cvtColor(photo(504), cv2.COLOR_BGR2BGRA))
    result = dataset.check()
    assert {finding.severity for finding in result.findings} <= {"warning"}
    assert not dataset.find("unreadable-image")
