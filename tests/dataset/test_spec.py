import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.recording import Recording
from yolo_cli.dataset.label_index import build_index
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.progress import Silent


def write(folder: Path, **keys) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a", "b"], **keys}))
    return str(file)


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def names(files: list[str], folder: Path) -> list[str]:
    return [Path(file).relative_to(folder).as_posix() for file in files]


class TestNames:
    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"names": ["a", "b"]}, ("a", "b")),
            ({"names": {1: "b", 0: "a"}}, ("a", "b")),
            ({"names": ["a", 7, 1.5], "nc": 3}, ("a", "7", "1.5")),
        ],
    )
    def test_accepted(self, keys: dict, expected: tuple[str, ...], tmp_path: Path) -> None:
        spec = load_spec(write(tmp_path, **keys))
        assert spec.names == expected
        assert spec.nc == len(expected)

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"nc": 3}, "nc is 3, but there are 2 names"),
            ({"nc": "two"}, "nc: a whole number"),
            ({"nc": 0}, "nc: a whole number"),
            ({"names": {0: "a", 2: "b"}}, "1 is missing"),
            ({"names": {"zero": "a"}}, "keys must be class numbers"),
            ({"names": []}, "names: a list"),
            ({"names": "a"}, "names: a list"),
            ({"names": [["a"]]}, "every class needs a name"),
            ({"train": 5}, "train: a path"),
            ({"train": None, "val": None}, "no train, val or test"),
            ({"path": ["x"]}, "path: text is expected"),
            ({"sha256": "abc"}, "sha256: 64 hexadecimal digits"),
            ({"generate": "os.system"}, "generate: 'os.system' is not one of shapes"),
            ({"val_fallback": "test"}, "val_fallback: 'test' is not a split"),
        ],
    )
    def test_error_names_the_file(self, keys: dict, message: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"data\.yaml: ") as error:
            load_spec(write(tmp_path, **keys))
        assert message in str(error.value)

    def test_nc_alone_numbers_the_classes(self, tmp_path: Path) -> None:
        touch(tmp_path / "images/train/a.jpg")
        spec = load_spec(write(tmp_path, names=None, nc=2))
        assert prepare(spec, Silent()).names == ("class0", "class1")

    def test_names_are_needed_where_nothing_states_them(self, tmp_path: Path) -> None:
        touch(tmp_path / "images/train/a.jpg", tmp_path / "images/val/b.jpg")
        with pytest.raises(UserError, match="no names"):
            prepare(load_spec(write(tmp_path, names=None)), Silent())

    @pytest.mark.parametrize("place", ["classes.txt", "images/train/_darknet.labels"])
    def test_a_names_file_of_an_annotation_tool_is_found(self, place: str, tmp_path: Path) -> None:
        touch(tmp_path / "images/train/a.jpg")
        (tmp_path / place).write_text("cat\n\nsmall dog\n")
        assert prepare(load_spec(write(tmp_path, names=None)), Silent()).names == ("cat", "small dog")

    def test_names_can_be_a_darknet_file(self, tmp_path: Path) -> None:
        (tmp_path / "obj.names").write_text("cat\ndog\n")
        assert load_spec(write(tmp_path, names="obj.names")).names == ("cat", "dog")


@pytest.mark.parametrize(
    "download",
    [
        "bash data/get.sh",
        "rm -rf / #.zip",
        "import os; os.system('x')",
        "https://a.b/c.zip\nimport os",
        "https://a.b/c.zip; rm x",
        "file:///etc/passwd",
        "ftp://a.b/c.zip",
    ],
)
def test_scripts_are_refused_not_run(download: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never executed"):
        load_spec(write(tmp_path, download=download))


class TestRoot:
    def test_search_order_of_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own, shared, here = (tmp_path / name for name in ("own", "shared", "here"))
        data = write(own, path="set")
        here.mkdir()
        monkeypatch.chdir(here)
        monkeypatch.setenv("YOLO_DATASETS", str(shared))
        for folder in (here, shared, own):  # in ascending order of preference
            touch(folder / "set/images/train/a.jpg")
            spec = prepare(load_spec(data), Silent())
            assert spec.root == folder / "set"
            assert split_files(spec, "train") == [str(folder / "set/images/train/a.jpg")]

    def test_default_path_is_the_folder_of_the_yaml(self, tmp_path: Path) -> None:
        touch(tmp_path / "images/train/a.jpg")
        assert load_spec(write(tmp_path)).root == tmp_path

    def test_exported_yaml_with_parent_folder(self, tmp_path: Path) -> None:
        touch(tmp_path / "set/train/images/a.jpg")
        spec = load_spec(write(tmp_path / "set", train="../train/images"))
        assert names(split_files(spec, "train"), tmp_path) == ["set/train/images/a.jpg"]

    def test_not_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        spec = load_spec(write(tmp_path / "own", path="set"))
        with pytest.raises(UserError, match=r"no images/train in .*own/set or .*set.*set YOLO_DATASETS"):
            prepare(spec, Silent())


class TestSplits:
    def test_folder_is_searched_recursively(self, tmp_path: Path) -> None:
        touch(
            *(tmp_path / "images/train" / name for name in ("b.JPG", "x/a.png", "notes.txt", "._b.jpg", ".hid/c.jpg"))
        )
        spec = load_spec(write(tmp_path))
        assert names(split_files(spec, "train"), tmp_path) == ["images/train/b.JPG", "images/train/x/a.png"]

    def test_circular_links(self, tmp_path: Path) -> None:
        touch(tmp_path / "images/train/a.jpg")
        (tmp_path / "images/train/loop").symlink_to(tmp_path / "images", target_is_directory=True)
        assert len(split_files(load_spec(write(tmp_path)), "train")) >= 1

    def test_linked_folder_is_followed(self, tmp_path: Path) -> None:
        touch(tmp_path / "far/a.jpg")
        (tmp_path / "images").mkdir()
        (tmp_path / "images/train").symlink_to(tmp_path / "far", target_is_directory=True)
        assert names(split_files(load_spec(write(tmp_path)), "train"), tmp_path) == ["images/train/a.jpg"]

    def test_an_unreadable_subfolder_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The path is longer than the system allows, which stops root too; permissions would not."""
        train = tmp_path / "images/train"
        train.mkdir(parents=True)
        cv2.imwrite(str(train / "a.jpg"), np.zeros((20, 20, 3), np.uint8))
        monkeypatch.chdir(train)
        for _ in range(25):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
        image, folder = split_files(load_spec(write(tmp_path)), "train")
        assert image == str(train / "a.jpg")
        with pytest.raises(OSError, match="File name too long"):
            os.listdir(folder)
        index = build_index([image, folder], 2, strict=False, cache_dir=None, workers=0, progress=None)
        assert len(index) == 1
        assert [str(problem) for problem in index.problems] == [f"{folder}: cannot be read (File name too long)"]

    def test_txt_list(self, tmp_path: Path) -> None:
        absolute = tmp_path / "else" / "c.jpg"
        touch(absolute)
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists/train.txt").write_bytes(
            f"\ufeff./a.jpg\r\n\r\nx/b.jpg\r\n../images/d.jpg\r\n{absolute}\r\n./a.jpg\r\n".encode()
        )
        spec = load_spec(write(tmp_path, train="lists/train.txt"))
        expected = ["else/c.jpg", "images/d.jpg", "lists/a.jpg", "lists/x/b.jpg"]
        assert names(split_files(spec, "train"), tmp_path) == expected

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
    def test_a_pipe_is_not_read_as_a_list(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "train.txt")
        with pytest.raises(UserError, match=r"train\.txt: .*not a file"):
            split_files(load_spec(write(tmp_path, train="train.txt")), "train")

    def test_lists_of_entries(self, tmp_path: Path) -> None:
        touch(tmp_path / "one/a.jpg", tmp_path / "two/b.jpg", tmp_path / "c.jpg")
        spec = load_spec(write(tmp_path, train=["one", "two", "one", "c.jpg"]))
        assert names(split_files(spec, "train"), tmp_path) == ["c.jpg", "one/a.jpg", "two/b.jpg"]

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            ("test", "has no `test` split"),
            ("val", "val: images/val is not in"),
            ("train", "train: no images in images/train"),
        ],
    )
    def test_missing_splits_and_images(self, split: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "images/train").mkdir(parents=True)
        with pytest.raises(UserError, match=message):
            split_files(load_spec(write(tmp_path)), split)


@pytest.mark.parametrize("name", assets.names("data"))
def test_shipped_files(name: str) -> None:
    spec = load_spec(name)
    assert {"train", "val"} <= spec.splits.keys()
    assert spec.nc == {"coco": 80, "coco128": 80, "shapes": 3, "voc": 20}[name]


def test_coco128_is_found_in_the_datasets_folder(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    reporter = Recording()
    spec = prepare(load_spec("coco128"), reporter)
    assert reporter.lines == []
    for split, boxes in (("train", 929), ("val", 898)):
        images = split_files(spec, split)
        index = build_index(images, 80, strict=False, cache_dir=None, workers=0, progress=None)
        assert (len(index), len(index.boxes)) == (128, boxes)


def test_coco128_without_val_evaluates_on_train_and_reports_it(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coco128" / "images").mkdir(parents=True)
    source = reference / "datasets/coco128/images/train2017"
    shutil.copytree(source, tmp_path / "coco128/images/train2017")
    monkeypatch.setenv("YOLO_DATASETS", str(tmp_path))
    reporter = Recording()
    spec = prepare(load_spec("coco128"), reporter)
    assert len(reporter.lines) == 1
    assert "val is the train split" in reporter.lines[0]
    assert split_files(spec, "val") == split_files(spec, "train")
