"""`yolo split`: the lists that it writes, read back as datasets."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.recording import Recording
from yolo_cli.cli.app import main
from yolo_cli.commands.convert import run as convert
from yolo_cli.commands.split import run
from yolo_cli.config import ConvertConfig, SplitConfig
from yolo_cli.dataset.spec import load_spec, prepare
from yolo_cli.dataset.splits import index_split
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Thirty images of three videos; class 2 in three of them, one image saved twice at another quality."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for i in range(30):
        name = f"v{i % 3}_{i:02d}"
        coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"set/images/{name}.jpg"), pixels)
        if i == 0:
            cv2.imwrite(str(tmp_path / "set/images/copy.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 70])
        (tmp_path / f"set/labels/{name}.txt").write_text(f"{2 if i % 10 == 0 else i % 2} 0.5 0.5 0.2 0.{i + 10}\n")
    return tmp_path / "set/images"


def split(images: object, output: Path, **options: object) -> Recording:
    reporter = Recording()
    run(SplitConfig(str(images), str(output), workers=0, **options), reporter)  # type: ignore[arg-type]
    return reporter


def names(data: Path, part: str) -> set[str]:
    spec = prepare(load_spec(str(data)), Silent())
    index = index_split(spec, part, strict=True, workers=0, reporter=Silent(), cached=False).index
    return {index.path(i).stem for i in range(len(index))}


def test_a_folder_becomes_three_lists(images: Path, tmp_path: Path) -> None:
    reporter = split(images, tmp_path / "out", val=0.2, test=0.1)
    parts = [names(tmp_path / "out/data.yaml", part) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [22, 6, 3]
    assert set.union(*parts) == {file.stem for file in images.iterdir()}
    assert prepare(load_spec(str(tmp_path / "out/data.yaml")), Silent()).names == ("class0", "class1", "class2")
    assert "val: 6 images (19.4%), " in "\n".join(reporter.lines)


def test_near_duplicates_stay_together(images: Path, tmp_path: Path) -> None:
    for seed in range(4):
        reporter = split(images, tmp_path / f"{seed}", val=0.5, seed=seed)
        assert "near-duplicates that stay together: 1 pair" in reporter.lines
        train = names(tmp_path / f"{seed}/data.yaml", "train")
        assert ("copy" in train) == ("v0_00" in train)


@pytest.mark.parametrize("regex", [r"(v\d)_", r"v\d", r"/(v\d)_\d+"])
def test_groups_stay_together(regex: str, images: Path, tmp_path: Path) -> None:
    split(images, tmp_path / "out", val=0.34, group=regex, ignore_duplicates=True)
    videos = [{name[:2] for name in names(tmp_path / "out/data.yaml", part)} - {"co"} for part in ("train", "val")]
    assert [len(part) for part in videos] == [2, 1]
    assert not videos[0] & videos[1]


def test_folds_hold_each_image_out_once(images: Path, tmp_path: Path) -> None:
    split(images, tmp_path / "out", folds=3, test=0.2, stratify=True, ignore_duplicates=True)
    test = names(tmp_path / "out/fold1/data.yaml", "test")
    held_out = []
    for k in (1, 2, 3):
        data = tmp_path / f"out/fold{k}/data.yaml"
        train, val = names(data, "train"), names(data, "val")
        assert not train & val
        assert names(data, "test") == test
        held_out += sorted(val)
        assert len(train | val | test) == 31
    assert len(held_out) == len(set(held_out)) == 31 - len(test)


def test_rare_classes_reach_every_fold(images: Path, tmp_path: Path) -> None:
    reporter = split(images, tmp_path / "out", folds=3, stratify=True)
    assert not [line for line in reporter.lines if " has no " in line]


def test_a_class_that_a_part_lacks_is_reported(images: Path, tmp_path: Path) -> None:
    for i in (10, 20):
        (images.parent / f"labels/v{i % 3}_{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert "val has no class2" in split(images, tmp_path / "out", seed=0, val=0.1).lines or (
        "train has no class2" in split(images, tmp_path / "again", seed=0, val=0.1).lines
    )


def test_a_dataset_with_annotations_is_split_anew(images: Path, tmp_path: Path) -> None:
    """Two COCO files over one folder of images: each list goes with its own file."""
    names_yaml = "names: [cat, dog, bird]\n"
    (images.parent / "data.yaml").write_text(f"train: images\n{names_yaml}")
    convert(ConvertConfig(str(images.parent / "data.yaml"), str(tmp_path / "coco"), to="coco"), Silent())
    whole = json.loads((tmp_path / "coco/annotations/train.json").read_text())
    for name, keep in (("train", range(20)), ("val", range(20, 31))):
        part = [whole["images"][i] for i in keep]
        (tmp_path / f"coco/annotations/{name}.json").write_text(json.dumps({**whole, "images": part, "annotations": [
            row for row in whole["annotations"] if row["image_id"] in {image["id"] for image in part}]}))  # fmt: skip
    (tmp_path / "coco/data.yaml").write_text(
        "train: {images: images/train, annotations: annotations/train.json}\n"
        "val: {images: images/train, annotations: annotations/val.json}\n"
    )
    split(tmp_path / "coco/data.yaml", tmp_path / "out", val=0.3)
    train, val = (names(tmp_path / "out/data.yaml", part) for part in ("train", "val"))
    assert len(train | val) == 31
    assert not train & val
    spec = prepare(load_spec(str(tmp_path / "out/data.yaml")), Silent())
    assert spec.names == ("cat", "dog", "bird")
    boxes = [
        len(index_split(spec, part, strict=True, workers=0, reporter=Silent()).index.boxes) for part in spec.splits
    ]
    assert sum(boxes) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "("}, r"--group \(: is no regular expression"),
        ({"group": "nothing"}, "--group nothing: matches no path; a path is"),
        ({"folds": 1}, "--folds 1: must be from 2 to 100"),
        ({"folds": 40}, "31 groups of images cannot fill 40 folds"),
        ({"group": "v", "val": 0.01}, "cannot fill 2 subsets"),
        ({"val": 0.6, "test": 0.4}, "leave no images for training"),
        ({"val": 0.0}, "leave nothing to split off"),
        ({"val": 2}, "--val 2: must be from 0 to 1"),
    ],
)
def test_what_cannot_be_split_is_one_line(options: dict, message: str, images: Path, tmp_path: Path) -> None:
    if options.get("group") == "v":
        (images / "copy.jpg").unlink()
    with pytest.raises(UserError, match=message):
        split(images, tmp_path / "out", ignore_duplicates=True, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("nowhere",), "no such file"), ((".", "--output", "."), "exists already"), (("empty",), "no images in")],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["split", *arguments])
    assert ended.value.code == 2
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_the_users_folder_is_not_written_to(images: Path, tmp_path: Path) -> None:
    before = sorted(file for file in images.parent.rglob("*"))
    split(images, tmp_path / "out")
    assert sorted(file for file in images.parent.rglob("*")) == before


def test_images_of_two_splits_are_used_once(images: Path, tmp_path: Path) -> None:
    data = tmp_path / "set/data.yaml"
    data.write_text("train: images\nval: images\ntest: ../test/images\nnames: [cat, dog, bird]\n")
    reporter = split(data, tmp_path / "out")
    assert "31 images are in two splits; they are used once, with the labels of the first" in reporter.lines
    assert [line for line in reporter.lines if line.startswith("test is left out: ")]
    assert len(names(tmp_path / "out/data.yaml", "train")) == 25
