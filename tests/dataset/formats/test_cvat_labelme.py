"""CVAT XML and LabelMe JSON: other shapes than boxes, videos, and broken files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.dataset.formats.conftest import Drawn
from tests.dataset.formats.drawn_files import cvat_document, write_labelme
from tests.dataset.formats.test_formats import opened
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.errors import UserError

ENCLOSED = "polygons and turned boxes, read as their enclosing boxes: 1"
LEFT_OUT = "points and lines, which have no box and are left out: 1"


@pytest.fixture
def open_cvat(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> Callable[[str], LabelIndex]:
    """Opens a CVAT file with this content below <annotations>; the first image, a.jpg, has 64×48 pixels."""

    def open_xml(content: str) -> LabelIndex:
        (tmp_path / "set/cvat.xml").write_text(f"<annotations>{content}</annotations>")
        entry = {"images": "images/train", "annotations": "cvat.xml"}
        return opened(data_yaml(train=entry, names=["cat"])).index

    return open_xml


def in_image(shape: str) -> str:
    return f'<image name="a.jpg" width="64" height="48">{shape}</image>'


@pytest.mark.parametrize(
    ("shape", "box", "note"),
    [
        ('<box label="cat" xtl="2" ytl="3" xbr="12" ybr="9"/>', [7, 6, 10, 6], None),
        ('<box label="cat" xtl="10" ytl="20" xbr="30" ybr="30" rotation="90"/>', [20, 25, 10, 20], ENCLOSED),
        ('<polygon label="cat" points="2,3;12,3;7,9"/>', [7, 6, 10, 6], ENCLOSED),
        ('<ellipse label="cat" cx="20" cy="20" rx="5" ry="3"/>', [20, 20, 10, 6], ENCLOSED),
        ('<mask label="cat" left="2" top="3" width="10" height="6" rle="1"/>', [7, 6, 10, 6], ENCLOSED),
        ('<polyline label="cat" points="2,3;12,3"/>', None, LEFT_OUT),
        ('<points label="cat" points="2,3"/>', None, LEFT_OUT),
        ('<tag label="cat"/>', None, LEFT_OUT),
    ],
)
def test_cvat_shapes(shape: str, box: list[float] | None, note: str | None, open_cvat) -> None:
    index = open_cvat(in_image(shape))
    np.testing.assert_allclose(index.boxes * [64, 48, 64, 48], [box] if box else np.zeros((0, 4)), rtol=1e-5)
    assert index.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ('<box label="cat" xtl="12" ytl="3" xbr="2" ybr="9"/>', "box without width or height"),
        ('<box label="cat" xtl="a" ytl="3" xbr="2" ybr="9"/>', "box that is not made of numbers"),
        ('<polygon label="cat" points="2,3;12"/>', "box that is not made of numbers"),
        ('<polygon label="cat"/>', "box that is not made of numbers"),
    ],
)
def test_a_bad_cvat_shape_is_reported(shape: str, what: str, open_cvat) -> None:
    index = open_cvat(in_image(shape))
    assert [(problem.line, problem.what) for problem in index.problems] == [(1, what)]


def test_frames_of_a_cvat_video_are_images(drawn: list[Drawn], open_cvat) -> None:
    for i, image in enumerate((drawn[0], drawn[3])):  # both 64×48
        image.file.rename(image.file.with_name(f"frame_{i:06d}{image.file.suffix}"))
    box = '<box frame="{}" outside="{}" xtl="2" ytl="3" xbr="12" ybr="9"/>'
    size = "<meta><task><original_size><width>64</width><height>48</height></original_size></task></meta>"
    index = open_cvat(f'{size}<track label="cat">{box.format(0, 0)}{box.format(1, 0)}{box.format(2, 0)}</track>'
                      f'<track label="cat">{box.format(1, 1)}</track>')  # fmt: skip
    assert [index.path(i).name[:12] for i in range(len(index))] == ["frame_000000", "frame_000001"]
    assert len(index.boxes) == 2
    assert [problem.what for problem in index.problems] == ["no image frame_000002"]


@pytest.mark.parametrize(
    "content", ["", "<annotations>", "<annotations/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>"]
)
def test_a_broken_cvat_file_is_one_line(
    content: str, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "set/cvat.xml").write_text(content)
    with pytest.raises(UserError, match=r"cvat\.xml"):
        opened(data_yaml(train={"images": "images/train", "annotations": "cvat.xml"}, names=["cat"]))


def test_several_cvat_tasks_are_joined(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "set/cvat").mkdir()
    for i in range(2):
        (tmp_path / f"set/cvat/{i}.xml").write_text(cvat_document(drawn[i::2]), encoding="utf-8")
    index = opened(data_yaml(train={"images": "images/train", "annotations": "cvat"})).index
    assert (len(index), len(index.boxes)) == (len(drawn), sum(len(image.boxes) for image in drawn))


@pytest.fixture
def open_labelme(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> Callable[..., LabelIndex]:
    """Opens a LabelMe file of a.jpg (64×48) with one shape."""

    def open_shape(*, label: object = "cat", kind: str | None = "polygon", points: object = None) -> LabelIndex:
        (tmp_path / "set/json").mkdir()
        shape = {"label": label, "points": points, "shape_type": kind}
        (tmp_path / "set/json/a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.jpg"}))
        return opened(data_yaml(train={"images": "images/train", "annotations": "json"}, names=["cat"])).index

    return open_shape


@pytest.mark.parametrize(
    ("kind", "points", "box", "note"),
    [
        ("rectangle", [[12, 9], [2, 3]], [7, 6, 10, 6], None),
        ("polygon", [[2, 3], [12, 3], [7, 9]], [7, 6, 10, 6], ENCLOSED),
        (None, [[2, 3], [12, 3], [7, 9]], [7, 6, 10, 6], ENCLOSED),
        ("circle", [[20, 20], [23, 24]], [20, 20, 10, 10], ENCLOSED),
        ("line", [[2, 3], [12, 3]], None, LEFT_OUT),
        ("point", [[2, 3]], None, LEFT_OUT),
    ],
)
def test_labelme_shapes(
    kind: str | None, points: list, box: list[float] | None, note: str | None, open_labelme
) -> None:
    index = open_labelme(kind=kind, points=points)
    np.testing.assert_allclose(index.boxes * [64, 48, 64, 48], [box] if box else np.zeros((0, 4)), rtol=1e-5)
    assert [text for text in index.notes if "without an annotation" not in text] == ([note] if note else [])


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"label": None}, "shape without a label"),
        ({"label": " "}, "shape without a label"),
        ({"points": [[1, 2], [3, "x"], [4, 5]]}, "box that is not made of numbers"),
        ({"points": [[1, 2, 3]]}, "box that is not made of numbers"),
        ({"points": 7}, "box that is not made of numbers"),
        ({"kind": "circle", "points": [[1, 2]]}, "box that is not made of numbers"),
    ],
)
def test_a_bad_labelme_shape_is_reported(shape: dict, what: str, open_labelme) -> None:
    index = open_labelme(**shape)
    assert [(Path(p.file).name, p.line, p.what) for p in index.problems] == [("a.json", 1, what)]


def test_a_broken_labelme_file_is_a_problem(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    entry = write_labelme(drawn[:8], tmp_path / "set")
    for name, content in (("x", "{"), ("y", "[]"), ("z", '{"shapes": []}')):
        (tmp_path / f"set/json/{name}.json").write_text(content)
    index = opened(data_yaml(train=entry)).index
    assert len(index) == 8
    assert [(Path(p.file).stem, p.what.split(":")[0].split(" (")[0]) for p in index.problems] == [
        ("x", "malformed JSON"), ("y", "is no LabelMe JSON"), ("z", "an image without a name"),
    ]  # fmt: skip
