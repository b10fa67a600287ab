"""Folders as Roboflow and Label Studio export them, in the layouts of their documentation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dataset.formats.conftest import NAMES, Drawn
from tests.dataset.formats.drawn_files import WRITERS, coco_document, voc_document, write_yolo
from tests.dataset.formats.test_formats import opened
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.splits import prepare_dataset
from yolo_cli.progress import Silent


@pytest.fixture
def expected(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> LabelIndex:
    """The index of the drawn dataset with txt labels, which are then removed."""
    index = opened(data_yaml(train=WRITERS["yolo"](drawn, tmp_path / "set"), names=list(NAMES))).index
    (tmp_path / "set/labels").rename(tmp_path / "unused")
    return index


def same_boxes(index: LabelIndex, expected: LabelIndex) -> bool:
    return index.fingerprint == expected.fingerprint


def test_roboflow_yolo(expected: LabelIndex, drawn: list[Drawn], tmp_path: Path) -> None:
    root = tmp_path / "set"
    (tmp_path / "unused").rename(root / "labels")
    (root / "train").mkdir()
    (root / "images/train").rename(root / "train/images")
    (root / "labels/train").rename(root / "train/labels")
    (root / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 3\nnames: {list(NAMES)}\n"
        "roboflow:\n  workspace: w\n  license: CC BY 4.0\n"
    )
    assert same_boxes(opened(str(root / "data.yaml")).index, expected)


def test_roboflow_coco(expected: LabelIndex, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    """Annotations are beside the images of each split; category 0 is the group of all classes."""
    document = coco_document(drawn)
    document["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
        {**category, "supercategory": "pets"} for category in document["categories"]
    ]
    (tmp_path / "set/images/train/_annotations.coco.json").write_text(json.dumps(document))
    data = data_yaml(train="images/train")
    assert prepare_dataset(data, Silent()).names == NAMES
    assert same_boxes(opened(data).index, expected)


def test_roboflow_voc(expected: LabelIndex, drawn: list[Drawn], data_yaml: Callable[..., str]) -> None:
    for image in drawn:
        image.file.with_suffix(".xml").write_text(voc_document(image), encoding="utf-8")
    assert same_boxes(opened(data_yaml(train="images/train", names=list(NAMES))).index, expected)


def test_roboflow_darknet(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    """txt files and _darknet.labels are beside the images."""
    write_yolo(drawn, tmp_path / "set")
    for file in (tmp_path / "set/labels/train").iterdir():
        file.rename(tmp_path / "set/images/train" / file.name)
    (tmp_path / "set/images/train/_darknet.labels").write_text("\n".join(NAMES))
    (tmp_path / "set/images").rename(tmp_path / "set/export")
    data = data_yaml(train="export/train")
    assert prepare_dataset(data, Silent()).names == NAMES
    assert len(opened(data).index.boxes) == sum(len(image.boxes) for image in drawn)


@pytest.mark.parametrize("prefix", ["images\\", "images/", "../../label-studio/data/media/upload/1/"])
def test_label_studio_coco(
    prefix: str, expected: LabelIndex, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    document = coco_document(drawn)
    for image in document["images"]:
        image["file_name"] = prefix + image["file_name"]
    (tmp_path / "set/result.json").write_text(json.dumps(document))
    assert same_boxes(opened(data_yaml(train="result.json")).index, expected)


def test_label_studio_voc(
    expected: LabelIndex, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    WRITERS["voc"](drawn, tmp_path / "set")
    assert same_boxes(opened(data_yaml(train=".", names=list(NAMES))).index, expected)


def test_label_studio_yolo(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    write_yolo(drawn, tmp_path / "set")
    (tmp_path / "set/classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "set/notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}))
    data = data_yaml(train="images")
    assert prepare_dataset(data, Silent()).names == NAMES
    assert len(opened(data).index.boxes) == sum(len(image.boxes) for image in drawn)
