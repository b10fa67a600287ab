"""`yolo convert --to`, run through the command line."""

import functools
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recording import Recording
from yolo_cli.cli.app import main
from yolo_cli.commands.convert import run as convert
from yolo_cli.config import ConvertConfig
from yolo_cli.dataset.spec import load_spec, prepare
from yolo_cli.dataset.splits import index_split
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent

TO = ("yolo", "coco", "voc")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(str(ended.value.code))


def converted(source: Path, target: Path, to: str, *, copy: bool = False) -> Recording:
    reporter = Recording()
    convert(ConvertConfig(str(source), str(target), to=to, copy=copy), reporter)
    return reporter


def fingerprint(folder: Path, split: str = "train") -> str:
    data = folder / "data.yaml" if folder.is_dir() else folder
    spec = prepare(load_spec(str(data)), Silent())
    return index_split(spec, split, strict=False, workers=0, reporter=Silent(), cached=False).index.fingerprint


def write_set(folder: Path, labels: dict[str, str], names: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write a dataset of YOLO labels by image name, all images 40×30 pixels; returns its data.yaml."""
    for name, text in labels.items():
        image = folder / "images/train" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.zeros((30, 40, 3), np.uint8))
        label = folder / "labels/train" / Path(name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text)
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "names": list(names)}))
    return file


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(write_set, tmp_path / "set")


LABELS = {
    "a.jpg": "0 0.5 0.5 0.333333 0.123457\n1 0.1 0.9 0.2 0.2\n",
    "b c é.png": "",
    "sub/a.jpg": "1 0.478333 0.25 0.95 0.5\n0 0.9 0.9 0.4 0.3\n",
}


@pytest.mark.parametrize("to", TO)
def test_any_order_of_formats_gives_the_same_dataset(to: str, make, tmp_path: Path) -> None:
    source = make(LABELS)
    expected = fingerprint(source)
    for number, then in enumerate((to, *TO, "yolo")):
        target = tmp_path / f"{number}"
        converted(source, target, then)
        assert fingerprint(target) == expected
        source = target / "data.yaml"
    for image, text in LABELS.items():
        assert (tmp_path / "4/labels/train" / Path(image).with_suffix(".txt")).read_text() == text


@given(
    boxes=st.lists(
        st.tuples(*[st.just(0.0) | st.floats(2**-16, 1, width=32)] * 2, *[st.floats(2**-16, 1, width=32)] * 2),
        max_size=5,
        unique=True,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_box_survives_every_format(
    boxes: list[tuple[float, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = write_set(
        tmp_path_factory.mktemp("set"), {"a.png": "".join(f"1 {' '.join(map(str, box))}\n" for box in boxes)}
    )
    for to in ("coco", "voc"):
        folder = tmp_path_factory.mktemp(to) / "out"
        assert f"read back: the same {len(boxes)} boxes" in "".join(converted(source, folder, to).lines)
        assert fingerprint(folder) == fingerprint(source)


def test_a_box_that_pixels_cannot_hold_moves_less_than_a_bit_of_a_pixel(make, tmp_path: Path) -> None:
    source = make({"a.jpg": "0 1e-40 0.5 0.2 0.2\n"})
    assert "read back: the same 1 boxes, to 1e-" in converted(source, tmp_path / "out", "coco").lines[1]


@pytest.mark.parametrize("to", TO)
def test_images_are_linked_or_copied(to: str, make, tmp_path: Path) -> None:
    source = make(LABELS)
    for linked in (True, False):
        target = tmp_path / f"linked{linked}"
        converted(source, target, to, copy=not linked)
        images = sorted(file for file in target.rglob("*") if file.suffix in (".jpg", ".png"))
        assert [image.is_symlink() for image in images] == [linked] * 3
        assert images[0].read_bytes() == (tmp_path / "set/images/train/a.jpg").read_bytes()


def test_pixels_of_whole_numbers_stay_whole(make, tmp_path: Path) -> None:
    """Boxes that were drawn in pixels come back as they were drawn, without decimals."""
    make({"a.jpg": f"0 {17 / 40!r} {11.5 / 30!r} {14 / 40!r} {7 / 30!r}\n"})
    converted(tmp_path / "set/data.yaml", tmp_path / "coco", "coco")
    assert json.loads((tmp_path / "coco/annotations/train.json").read_text())["annotations"][0]["bbox"] == [
        10,
        8,
        14,
        7,
    ]
    converted(tmp_path / "coco/data.yaml", tmp_path / "voc", "voc")
    text = (tmp_path / "voc/Annotations/train/a.xml").read_text()
    for edge in ("<xmin>10<", "<ymin>8<", "<xmax>24<", "<ymax>15<"):
        assert edge in text
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text() == "train/a\n"


def test_images_in_shards_are_unpacked(make, tmp_path: Path) -> None:
    source = make(LABELS)
    expected = fingerprint(source)
    with tarfile.open(tmp_path / "set/train.tar", "w") as archive:
        for part in ("images/train", "labels/train"):
            archive.add(tmp_path / "set" / part, part)
    source.write_text("train: train.tar\nnames: [cat, dog]\n")
    converted(source, tmp_path / "out", "coco")
    assert fingerprint(tmp_path / "out") == expected


def test_what_is_left_out_is_in_the_report(make, tmp_path: Path) -> None:
    source = make({"a.jpg": "0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n"})
    assert "1 label row left out" in converted(source, tmp_path / "out", "voc").lines[0]
    report = json.loads((tmp_path / "out/dataset_report.json").read_text())
    assert report["train"]["problems"][0]["what"] == "class 7 is out of range for 2 classes"


def test_names_that_share_a_label_file_are_refused(make, tmp_path: Path) -> None:
    make({"a.jpg": "0 0.5 0.5 0.2 0.2\n", "b.png": "1 0.5 0.5 0.2 0.2\n"})
    converted(tmp_path / "set/data.yaml", tmp_path / "coco", "coco")
    os.rename(tmp_path / "coco/images/train/b.png", tmp_path / "coco/images/train/a.png")
    file = tmp_path / "coco/annotations/train.json"
    file.write_text(file.read_text().replace("b.png", "a.png"))
    with pytest.raises(UserError, match=r"a\.jpg and a\.png would share a label file, and their boxes differ"):
        converted(tmp_path / "coco/data.yaml", tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set/data.yaml", "set", "--to", "coco"), "set: exists already"),
        (("set/data.yaml", "no/where", "--to", "coco"), "no: no such folder"),
        (("set/data.yaml", "out", "--to", "kitti"), "give yolo or coco or voc"),
        (("set/data.yaml", "out"), "is no weight file; give --to yolo, coco or voc"),
        (("set/data.yaml", "out", "--copy"), "--copy"),
        (("set/gone.yaml", "out", "--to", "voc"), "no such file"),
        (("set/data.yaml", "out", "--to", "voc", "--cfg", "a.cfg"), "only Darknet weights take a .cfg"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: tuple[str, ...],
    message: str,
    make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(LABELS)
    monkeypatch.chdir(tmp_path)
    assert run("convert", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_class_names_that_the_format_cannot_hold_are_refused(make, tmp_path: Path) -> None:
    source = make(LABELS, names=("twice", "twice"))
    with pytest.raises(UserError, match="--to coco: cannot hold the train split: 4 of 4 boxes"):
        converted(source, tmp_path / "out", "coco")


def test_a_test_split_without_images_is_left_out(make, tmp_path: Path) -> None:
    source = make(LABELS)
    source.write_text(source.read_text() + "test: ../test/images\n")
    lines = converted(source, tmp_path / "out", "coco").lines
    assert [line for line in lines if line.startswith("test is left out: ")]
    assert "test" not in load_spec(str(tmp_path / "out/data.yaml")).splits
    source.write_text(source.read_text().replace("test:", "val:"))
    with pytest.raises(UserError, match=r"val: \.\./test/images is not in"):
        converted(source, tmp_path / "again", "coco")
