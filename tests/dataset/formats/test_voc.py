"""Pascal VOC XML as the challenges, LabelImg, Roboflow and Label Studio write it, and broken."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.dataset.formats.conftest import Drawn
from tests.dataset.formats.drawn_files import voc_document, write_voc
from tests.dataset.formats.test_formats import opened
from yolo_cli.dataset.spec import load_spec
from yolo_cli.errors import UserError

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


@pytest.fixture
def open_object(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> Callable:
    """Opens the first image (64×48) with these objects in its XML."""

    def open_xml(objects: str, head: str = "<size><width>64</width><height>48</height></size>", declaration: str = ""):
        (tmp_path / "set/xml").mkdir(exist_ok=True)
        text = f"{declaration}<annotation><filename>a.jpg</filename>{head}{objects}</annotation>"
        (tmp_path / "set/xml/a.xml").write_text(text)
        return opened(data_yaml(train={"images": "images/train", "annotations": "xml"}, names=["cat"])).index

    return open_xml


def cat(shape: str) -> str:
    return f"<object><name>cat</name>{shape}</object>"


def test_edges_are_positions_between_pixels(open_object) -> None:
    index = open_object(cat(BOX.format(0, 0, 64, 48)))
    assert index.labels(0).tolist() == [[0, 0.5, 0.5, 1, 1]]


def test_files_of_the_challenges_number_pixels_from_1(open_object) -> None:
    size = "<size><width>64</width><height>48</height></size>"
    index = open_object(
        cat(BOX.format(1, 1, 64, 48)), f"<source><database>The VOC2007 Database</database></source>{size}"
    )
    assert index.labels(0).tolist() == [[0, 0.5, 0.5, 1, 1]]


def test_decimals_are_read(open_object) -> None:
    np.testing.assert_allclose(
        open_object(cat(BOX.format("1.5", "2.25", "3.5", "4.75"))).labels(0)[0, 1:],
        [2.5 / 64, 3.5 / 48, 2 / 64, 2.5 / 48],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        pytest.param("<robndbox><cx>32</cx><cy>24</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>",
                     [32, 24, 10, 20], id="turned"),
        pytest.param("<polygon><pt><x>2</x><y>3</y></pt><pt><x>12</x><y>3</y></pt><pt><x>7</x><y>9</y></pt></polygon>",
                     [7, 6, 10, 6], id="polygon of points"),
        pytest.param("<polygon><x1>2</x1><y1>3</y1><x2>12</x2><y2>3</y2><x3>7</x3><y3>9</y3></polygon>",
                     [7, 6, 10, 6], id="polygon of numbered points"),
    ],
)  # fmt: skip
def test_other_shapes_become_their_enclosing_boxes(shape: str, box: list[float], open_object) -> None:
    index = open_object(cat(shape))
    np.testing.assert_allclose(index.boxes[0] * [64, 48, 64, 48], box, rtol=1e-5)
    assert "polygons and turned boxes, read as their enclosing boxes: 1" in index.notes


@pytest.mark.parametrize(
    ("objects", "what"),
    [
        (cat(BOX.format(5, 5, 5, 9)), "box without width or height"),
        (cat(BOX.format(9, 5, 5, 9)), "box without width or height"),
        (cat(BOX.format(5, 5, 500, 9)), "box 5 5 500 9 is outside the image of 64×48 pixels"),
        (cat(BOX.format("", 5, 5, 9)), "box that is not made of numbers"),
        (cat(BOX.format("1_0", 5, 5, 9)), "box that is not made of numbers"),
        (cat(""), "box that is not made of numbers"),
        (f"<object>{BOX.format(1, 1, 5, 5)}</object>", "object without a name"),
    ],
)
def test_a_bad_object_is_left_out_and_reported(objects: str, what: str, open_object) -> None:
    index = open_object(cat(BOX.format(1, 2, 30, 40)) + objects)
    assert len(index.boxes) == 1
    assert [(Path(p.file).name, p.line, p.what) for p in index.problems] == [("a.xml", 2, what)]


def test_a_size_of_zero_is_that_of_the_image(open_object) -> None:
    head = "<size><width>0</width><height>0</height></size>"
    assert open_object(cat(BOX.format(0, 0, 64, 48)), head).labels(0).tolist() == [[0, 0.5, 0.5, 1, 1]]


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>"
STEAL = "<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed XML: no element found"),
        (b"<annotation><object>", "malformed XML: no element found"),
        (b"<annotation>&undefined;</annotation>", "malformed XML: undefined entity"),
        (f"{BOMB}<annotation>&b;</annotation>".encode(), "declares entities"),
        (f"{STEAL}<annotation>&a;</annotation>".encode(), "declares entities"),
        (f"{BOMB}<annotation>&b;</annotation>".encode("utf-16"), "declares entities"),
        (b"<a>" * 101, "nested too deeply"),
        (b"<?xml version='1.0' encoding='rot13'?><annotation/>", "malformed XML"),
        (b"<html></html>", "is no VOC XML: its root is <html>"),
        (b"\x00\x01", "malformed XML"),
    ],
)
def test_a_broken_file_is_a_problem_and_the_others_are_read(
    content: bytes, message: str, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    entry = write_voc(drawn, tmp_path / "set")
    (tmp_path / "set/Annotations/zz.xml").write_bytes(content)
    index = opened(data_yaml(train=entry)).index
    assert len(index) == len(drawn)
    (problem,) = index.problems
    assert (Path(problem.file).name, message in problem.what) == ("zz.xml", True)


def test_images_without_xml_are_counted(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    index = opened(data_yaml(train=write_voc(drawn[:6], tmp_path / "set"))).index
    assert len(index) == 6
    assert index.notes == ("images without an annotation, left out: 3",)


@pytest.mark.parametrize("layout", ["beside the images", "VOCdevkit", "the XML folder alone"])
def test_usual_layouts_are_found(
    layout: str, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    expected = opened(data_yaml(train=write_voc(drawn, root))).index
    if layout == "beside the images":
        for image in drawn:
            os.replace(root / f"Annotations/{image.file.stem}.xml", image.file.with_suffix(".xml"))
        entry = "images/train"
    else:
        (root / "VOC2012").mkdir()
        (root / "images/train").rename(root / "VOC2012/JPEGImages")
        (root / "Annotations").rename(root / "VOC2012/Annotations")
        entry = "VOC2012" if layout == "VOCdevkit" else "VOC2012/Annotations"
    assert opened(data_yaml(train=entry)).index.fingerprint == expected.fingerprint


def test_a_stale_file_name_does_not_matter(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    entry = write_voc(drawn, tmp_path / "set")
    expected = opened(data_yaml(train=entry)).index
    for image in drawn:
        text = voc_document(image).replace(f">{image.file.name}<", ">a.jpg<")
        (tmp_path / f"set/Annotations/{image.file.stem}.xml").write_text(text)
    assert opened(data_yaml(train=entry)).index.fingerprint == expected.fingerprint


def test_a_folder_of_xml_without_any_image_is_an_error(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    write_voc(drawn, tmp_path / "set")
    for image in drawn:
        image.file.unlink()
    with pytest.raises(UserError, match="Pascal VOC XML: no images are in"):
        opened(data_yaml(train="Annotations"))


def test_a_data_yaml_without_names_is_no_error_before_the_labels_are_read(data_yaml: Callable[..., str]) -> None:
    assert load_spec(data_yaml(train="Annotations")).names == ()


def test_difficult_objects_are_objects_or_regions(open_object, data_yaml: Callable[..., str], tmp_path: Path) -> None:
    difficult = f"<object><name>cat</name><difficult>1</difficult>{BOX.format(0, 0, 32, 24)}</object>"
    assert len(open_object(cat(BOX.format(32, 0, 64, 48)) + difficult).labels(0)) == 2
    entry = {"images": "images/train", "annotations": "xml", "ignore_difficult": True}
    index = opened(data_yaml(train=entry, names=["cat"])).index
    assert index.labels(0).tolist() == [[0, 0.75, 0.5, 0.5, 1]]
    assert index.ignored_rows(0).tolist() == [[0, 0.25, 0.25, 0.5, 0.5]]
    assert "difficult objects, in which predictions are ignored: 1" in index.notes
    with pytest.raises(UserError, match="ignore_difficult is true or false"):
        load_spec(data_yaml(train=entry | {"ignore_difficult": "yes please"}))
    with pytest.raises(UserError, match="has no Pascal VOC annotations"):
        opened(data_yaml(train={"images": "images/train", "ignore_difficult": True}, names=["cat"]))
