"""`--fix`: a copy without what is certainly wrong, from which training reads the rest unchanged."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data_checks.conftest import Dataset, photo
from yolo_cli.commands import check
from yolo_cli.config import CheckConfig
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent


def fix(dataset: Dataset, out: Path) -> dict[str, str]:
    """Write the copy; returns the changes by file name and line."""
    dataset.check(fix=str(out))
    changes = json.loads((out / "changes.json").read_text())
    return {f"{Path(each['file']).name}:{each['line']}": each["change"] for each in changes}


def test_a_sound_dataset_is_copied_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    assert fix(dataset, tmp_path / "out") == {}
    for split, count in (("train", 12), ("val", 10)):
        labels = sorted((tmp_path / "out/labels" / split).iterdir())
        assert len(labels) == count
        for label in labels:
            assert label.read_bytes() == (dataset.root / "labels" / split / label.name).read_bytes()
        for image in (tmp_path / "out/images" / split).iterdir():
            assert image.is_symlink()
            assert os.path.realpath(image) == str(dataset.image(split, image.name))


def test_what_is_wrong_is_gone(dataset: Dataset, tmp_path: Path) -> None:
    good = dataset.rows[1]
    dataset.label("train", "1.jpg", good, "9 0.5 0.5 0.2 0.2", "0 x", "0 0.5 0.5 0.2 0.2", "0 0.501 0.5 0.2 0.2")
    dataset.label("train", "2.jpg", "0 1.02 0.5 0.2 0.2", "0 1.4 0.5 0.2 0.2", good)  # mostly outside: 0.08 of 0.2
    dataset.label("train", "3.jpg", "1 0.5 0.5 0.2 1.2", good)
    dataset.image("train", "4.jpg").write_bytes(b"")
    shutil.copy(dataset.image("train", "5.jpg"), dataset.image("val", "leak.jpg"))
    dataset.label("val", "leak.jpg", *dataset.rows)
    dataset.label("train", "gone.jpg", good)
    before = {path: path.read_bytes() for path in dataset.root.rglob("*.txt")}
    out = tmp_path / "out"
    changes = fix(dataset, out)
    assert (out / "labels/train/1.txt").read_text() == f"{good}\n0 0.5 0.5 0.2 0.2\n"
    assert (out / "labels/train/2.txt").read_text() == f"{good}\n"
    assert (out / "labels/train/3.txt").read_text() == f"1 0.5 0.5 0.2 1\n{good}\n"
    assert not (out / "labels/train/gone.txt").exists()
    names = {path.name for path in (out / "images/train").iterdir()}
    assert names == {f"{i}.jpg" for i in range(12)} - {"4.jpg", "5.jpg"}
    assert set(changes) == {"1.txt:2", "1.txt:3", "1.txt:5", "2.txt:1", "2.txt:2", "3.txt:1", "4.jpg:0", "5.jpg:0"}
    assert "double box: 0 0.501" in changes["1.txt:5"]
    assert "cut at the border" in changes["3.txt:1"]
    assert {path: path.read_bytes() for path in dataset.root.rglob("*.txt")} == before
    again = check.run(CheckConfig(str(out / "data.yaml"), html=False, advice=False, workers=1), Silent())
    assert not [finding for finding in again.findings if finding.severity == "error"]


def test_two_boxes_of_different_classes_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    dataset.label("train", "1.jpg", "0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2")
    assert fix(dataset, tmp_path / "out") == {}


def test_folders_that_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for folder, why in (("taken", "exists already"), ("data/fixed", "inside the dataset")):
        with pytest.raises(UserError, match=why):
            dataset.check(fix=str(tmp_path / folder))
    assert not (dataset.root / "fixed").exists()


def test_annotations_of_another_format_become_txt_labels(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    shutil.rmtree(dataset.root / "labels/val")
    images = sorted((dataset.root / "images/val").iterdir())
    content = {
        "images": [{"id": i, "file_name": file.name, "height": 120, "width": 160} for i, file in enumerate(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i // 2, "category_id": i % 2 + 1, "bbox": [16, 12, 80, 60]} for i in range(20)
        ],
    }
    (dataset.root / "val.json").write_text(json.dumps(content))
    dataset.spec.write_text(
        "path: .\ntrain: images/train\nval: {images: images/val, annotations: val.json}\nnames: [cat, dog]\n"
    )
    fix(dataset, tmp_path / "out")
    labels = np.loadtxt(tmp_path / "out/labels/val/100.txt")
    assert labels == pytest.approx(np.array([[0, 0.35, 0.35, 0.5, 0.5], [1, 0.35, 0.35, 0.5, 0.5]]))


def test_images_of_subfolders_keep_their_places(dataset: Dataset, tmp_path: Path) -> None:
    dataset.add("train", "more/0.jpg", photo(900))
    fix(dataset, tmp_path / "out")
    assert (tmp_path / "out/images/train/more/0.jpg").exists()
    assert (tmp_path / "out/labels/train/more/0.txt").exists()
