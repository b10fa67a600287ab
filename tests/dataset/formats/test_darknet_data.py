"""Darknet's .data and .names files, and lists whose paths are relative to where Darknet was started."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dataset.formats.conftest import NAMES, Drawn
from tests.dataset.formats.drawn_files import write_yolo
from tests.dataset.formats.test_formats import opened
from yolo_cli.dataset.spec import load_spec
from yolo_cli.errors import UserError


@pytest.fixture
def darknet(drawn: list[Drawn], tmp_path: Path) -> Path:
    """set/cfg/obj.data, its paths relative to `set`."""
    root = tmp_path / "set"
    write_yolo(drawn, root)
    (root / "cfg").mkdir()
    for name, images in (("train", drawn[2:]), ("valid", drawn[:2])):
        lines = [f"images/train/{image.file.name}\n" for image in images]
        (root / f"cfg/{name}.txt").write_text("".join(lines))
    (root / "cfg/obj.names").write_text("\n".join(NAMES) + "\n")
    (root / "cfg/obj.data").write_text(
        "classes= 3\ntrain  = cfg/train.txt\nvalid = cfg/valid.txt\n"
        "# a comment\nnames = cfg/obj.names\nbackup = backup/\n"
    )
    return root / "cfg/obj.data"


def test_a_data_file_is_a_dataset(darknet: Path) -> None:
    train, val = (opened(str(darknet), split=split).index for split in ("train", "val"))
    assert (len(train), len(val)) == (7, 2)
    assert load_spec(str(darknet)).names == NAMES
    assert len(val.labels(0)) == 3


def test_data_yaml_can_name_a_data_file(darknet: Path, data_yaml: Callable[..., str]) -> None:
    data = data_yaml(train="cfg/obj.data", val="cfg/obj.data")
    for split in ("train", "val"):
        assert opened(data, split=split).index.fingerprint == opened(str(darknet), split=split).index.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [("train cfg/train.txt", "a line `key = value` is expected"), ("classes = 3", "no train, val or test")],
)
def test_a_broken_data_file_is_one_line(text: str, message: str, darknet: Path) -> None:
    darknet.write_text(text)
    with pytest.raises(UserError, match=message):
        load_spec(str(darknet))


def test_a_data_file_without_the_split_is_one_line(darknet: Path, data_yaml: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"obj\.data: has no line `test = …`"):
        opened(data_yaml(test="cfg/obj.data", names=list(NAMES)), split="test")
