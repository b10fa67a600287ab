"""COCO JSON with everything that is wrong in real files."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.dataset.formats.conftest import Drawn
from tests.dataset.formats.drawn_files import coco_document
from tests.dataset.formats.test_formats import opened
from yolo_cli.errors import UserError


@pytest.fixture
def open_coco(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> Callable:
    """Opens the drawn dataset as COCO JSON, after `edit` has changed its content."""

    def open_edited(edit: Callable[[dict], object], **entry: str):
        document = copy.deepcopy(coco_document(drawn))
        edit(document)
        file = tmp_path / "set/coco.json"
        file.write_text(json.dumps(document))
        return opened(data_yaml(train={"images": "images/train", "annotations": "coco.json", **entry}))

    return open_edited


def first_box(**changes: object) -> Callable[[dict], object]:
    return lambda document: document["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"bbox": [1, 2, 0, 5]}, "box without width or height"),
        ({"bbox": [1, 2, 5, -5]}, "box without width or height"),
        ({"bbox": [500, 2, 5, 5]}, "box 500 2 505 7 is outside the image of 64×48 pixels (a.jpg)"),
        ({"bbox": [1, 2, "x", 5]}, "box that is not made of numbers"),
        ({"bbox": [1, 2, 1e999, 5]}, "box that is not made of numbers"),
        ({"bbox": [1, 2, None, 5]}, "box that is not made of numbers"),
        ({"bbox": [1, 2, 3]}, "box that is not made of numbers"),
        ({"bbox": None}, "box that is not made of numbers"),
        ({"image_id": 999}, "image id 999 is not among the images"),
        ({"category_id": 1}, "category id 1 is not among the categories"),
    ],
    ids=str,
)
def test_a_bad_annotation_is_left_out_and_reported(changes: dict, what: str, open_coco) -> None:
    good = len(open_coco(lambda document: None).index.boxes)
    index = open_coco(first_box(**changes)).index
    assert len(index.boxes) == good - 1
    ((file, row, found),) = [(Path(p.file).name, p.line, p.what) for p in index.problems]
    assert (file, row) == ("coco.json", 1)
    assert found.startswith(what)


def test_a_repeated_annotation_is_a_duplicate(open_coco) -> None:
    index = open_coco(lambda d: d["annotations"].append(d["annotations"][0] | {"id": 77})).index
    assert [(p.line, p.what) for p in index.problems] == [(77, "duplicate row (a.jpg)")]


def test_boxes_that_exceed_the_image_by_rounding_are_clipped(open_coco) -> None:
    index = open_coco(first_box(bbox=[-0.5, 0, 65, 48.4])).index
    assert not index.problems
    assert index.labels(0)[0, 3:].tolist() == [1, 1]


def test_polygons_without_a_box_become_one_which_is_said(open_coco) -> None:
    polygons = [[10, 10, 20, 10, 20, 30], [12, 8, 30, 9, 15, 12]]
    index = open_coco(first_box(bbox=None, segmentation=polygons)).index
    np.testing.assert_allclose(index.labels(0)[0, 1:], [20 / 64, 19 / 48, 20 / 64, 22 / 48], rtol=1e-6)
    assert index.notes == ("polygons and turned boxes, read as their enclosing boxes: 1",)


def test_missing_images_are_reported_once_each(open_coco) -> None:
    def add(document: dict) -> None:
        document["images"].append({"id": 7, "file_name": "gone.jpg", "height": 5, "width": 5})
        document["annotations"] += [
            {"id": 900 + i, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, i]} for i in (1, 2)
        ]

    index = open_coco(add).index
    assert [(Path(p.file).name, p.line, p.what) for p in index.problems] == [("coco.json", 0, "no image gone.jpg")]


@pytest.mark.parametrize("prefix", ["C:\\data\\", "/home/other/data/images/train/", "./", "upload\\1/"])
def test_paths_of_another_machine_are_found_by_their_names(prefix: str, open_coco) -> None:
    expected = open_coco(lambda document: None).index

    def edit(document: dict) -> None:
        for image in document["images"]:
            image["file_name"] = prefix + image["file_name"]

    assert open_coco(edit).index.fingerprint == expected.fingerprint


def test_one_name_in_two_folders_is_told_apart_by_the_path(drawn, data_yaml, tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / f"set/{part}").mkdir()
        cv2.imwrite(str(tmp_path / f"set/{part}/x.jpg"), np.zeros((20, 30, 3), np.uint8))
    images = [{"id": i, "file_name": name, "height": 20, "width": 30} for i, name in enumerate(["one/x.jpg", "x.jpg"])]
    rows = [{"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 1, 5, 5]}]
    document = {"images": images, "annotations": rows, "categories": [{"id": 0, "name": "a"}]}
    (tmp_path / "set/coco.json").write_text(json.dumps(document))
    index = opened(data_yaml(train="coco.json")).index
    assert [index.path(i) for i in range(len(index))] == [tmp_path / "set/one/x.jpg"]
    assert "several images are named x.jpg" in index.problems[0].what


def test_an_image_listed_twice_has_the_boxes_of_both(open_coco) -> None:
    def edit(document: dict) -> None:
        document["images"].append(document["images"][0] | {"id": 7})
        document["annotations"].append({"id": 900, "image_id": 7, "category_id": 3, "bbox": [1, 1, 7, 7]})

    split = open_coco(edit)
    assert len(split.index.labels(0)) == 4
    assert split.index.notes == ("images that are listed twice, whose boxes are joined: 1",)


def test_a_resized_image_keeps_its_boxes_and_one_of_another_shape_is_left_out(open_coco) -> None:
    expected = open_coco(lambda document: None).index

    def double(document: dict) -> None:
        for image in document["images"]:
            image["height"], image["width"] = image["height"] * 2, image["width"] * 2
        for row in document["annotations"]:
            row["bbox"] = [2 * value for value in row["bbox"]]

    assert open_coco(double).index.fingerprint == expected.fingerprint
    index = open_coco(lambda d: d["images"][0].update(height=64, width=48)).index
    assert len(index) == len(expected) - 1
    assert "is 64×48 as displayed, but its annotation is for 48×64" in index.problems[0].what


def test_roboflows_group_of_all_classes_is_no_class(open_coco) -> None:
    def edit(document: dict) -> None:
        for category in document["categories"]:
            category["supercategory"] = "pets"
        document["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})

    assert open_coco(edit).index.classes.max() == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed JSON"),
        (b"{", "coco.json:1: malformed JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "malformed JSON"),
        (b"\xff\xfe\x00", "malformed JSON"),
        (b"[]", "none of the known formats"),
        (b'{"images": [], "annotations": []}', "none of its images is in"),
        (b'{"images": [{}], "annotations": []}', "is no COCO JSON: no 'file_name'"),
        (b'{"images": [[]], "annotations": []}', "is no COCO JSON"),
        (b'{"images": [{"id": [], "file_name": "a.jpg"}], "annotations": []}', "is no COCO JSON"),
        (b'{"images": [], "annotations": 3}', "is no COCO JSON"),
        (b'{"images": [], "annotations": [3]}', "is no COCO JSON"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', "is no COCO JSON: no 'name'"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "x"}]}', "is no COCO JSON"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_coco_is_one_line(content: bytes, message: str, drawn, data_yaml, tmp_path: Path) -> None:
    (tmp_path / "set/coco.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        opened(data_yaml(train={"images": "images/train", "annotations": "coco.json"}))
    assert message in str(error.value)
    assert "coco.json" in str(error.value)


def test_a_missing_folder_of_images_is_named(drawn, data_yaml, tmp_path: Path) -> None:
    (tmp_path / "set/elsewhere").mkdir()
    (tmp_path / "set/elsewhere/coco.json").write_text(json.dumps(coco_document(drawn)))
    with pytest.raises(UserError, match=r"no images are in .*elsewhere.*write `{images: FOLDER, annotations"):
        opened(data_yaml(train={"images": "elsewhere", "annotations": "elsewhere/coco.json"}))
