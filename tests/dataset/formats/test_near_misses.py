"""Paths and layouts that are nearly right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dataset.formats.conftest import Drawn
from tests.dataset.formats.drawn_files import WRITERS
from tests.dataset.formats.test_formats import opened
from tests.recording import Recording
from yolo_cli.dataset.near_misses import suggest_images
from yolo_cli.dataset.spec import load_spec
from yolo_cli.errors import UserError


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")


@pytest.mark.parametrize(
    ("files", "split", "given", "answer"),
    [
        (["train/images/a.jpg", "valid/images/b.jpg"], "train", "images/train", "write `train: train/images`"),
        (["train/images/a.jpg", "valid/images/b.jpg"], "val", "images/val", "write `val: valid/images`"),
        (["images/train2017/a.jpg", "images/val2017/b.jpg"], "val", "images/val", "write `val: images/val2017`"),
        (["Images/Train/a.jpg"], "train", "images/train", "write `train: Images/Train`"),
        (["train/one/a.jpg", "train/a.jpg"], "train", "images/train", "write `train: train`"),
        (["pictures/a.jpg"], "train", "picture", "write `train: pictures`"),
        (["frames/a.jpg", "more/b.png"], "train", "images/train", "images are in frames, more"),
        (["train/a.jpg"], "test", "images/test", "images are in train"),
        (["labels/a.txt"], "train", "images/train", ""),
    ],
)
def test_images_elsewhere_are_named(files: list[str], split: str, given: str, answer: str, tmp_path: Path) -> None:
    touch(tmp_path, *files)
    found = suggest_images(tmp_path, split, given)
    assert answer in found
    assert bool(found) == bool(answer)


def test_a_folder_of_a_similar_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "street_data").mkdir()
    assert suggest_images(tmp_path / "street-data", "train", "images/train") == f"{tmp_path} has street_data"


def test_the_message_of_a_wrong_path(drawn: list[Drawn], data_yaml: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"no train/images in .*; images are in images/train: write `train: im"):
        opened(data_yaml(train="train/images", names=["cat"]))


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("coco", "there is COCO JSON in annotations/instances_train.json: write "
                 "`train: {images: images/train, annotations: annotations/instances_train.json}`"),
        ("voc", "there is Pascal VOC XML in Annotations: write "
                "`train: {images: images/train, annotations: Annotations}`"),
    ],
)  # fmt: skip
def test_annotations_of_images_without_txt_labels_are_named(
    kind: str,
    entry: str,
    drawn: list[Drawn],
    data_yaml: Callable[..., str],
    tmp_path: Path,
) -> None:
    WRITERS[kind](drawn, tmp_path / "set")
    reporter = Recording()
    opened(data_yaml(train="images/train", names=["cat"]), reporter)
    assert reporter.lines[0] == (f"train: none of the 9 images has a label file such as labels/train/a.txt; {entry}")


def test_txt_labels_in_another_folder_are_named(
    drawn: list[Drawn],
    data_yaml: Callable[..., str],
    tmp_path: Path,
) -> None:
    WRITERS["yolo"](drawn, tmp_path / "set")
    (tmp_path / "set/labels/train").rename(tmp_path / "set/annotations")
    reporter = Recording()
    opened(data_yaml(train="images/train", names=["cat"]), reporter)
    assert reporter.lines[0].endswith("; there are some in annotations: put them in labels/train")


def test_a_folder_given_as_data_names_its_yaml(data_yaml: Callable[..., str]) -> None:
    file = data_yaml(train="a", names=["b"])
    with pytest.raises(UserError, match=f"is a folder; a YAML file is expected; give {file}"):
        load_spec(str(Path(file).parent))


@pytest.mark.parametrize("missing", ["annotations/instances_trn.json", {"images": "images/train", "annotations": "x"}])
def test_annotations_elsewhere_are_named(
    missing: object, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    WRITERS["coco"](drawn, tmp_path / "set")
    (tmp_path / "set/another.json").write_text("{}")
    with pytest.raises(UserError, match=r"; there is COCO JSON in annotations/instances_train\.json$"):
        opened(data_yaml(train=missing, names=["cat"]))


def test_json_files_of_other_kinds_beside_coco_are_ignored(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    WRITERS["coco"](drawn, tmp_path / "set")
    for name, content in (("a.json", "{}"), ("b.json", "{"), ("c.json", "[]")):
        (tmp_path / "set/annotations" / name).write_text(content)
    assert len(opened(data_yaml(train={"images": "images/train", "annotations": "annotations"})).index) == len(drawn)
