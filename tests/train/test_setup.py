from dataclasses import asdict
from pathlib import Path

import pytest

from yolo_cli import assets
from yolo_cli.config import Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent
from yolo_cli.train.setup import read_hyperparameters


@pytest.mark.parametrize("name", assets.names("data/hyp"))
def test_every_shipped_file_is_read(name: str) -> None:
    assert isinstance(read_hyperparameters(name, Silent()), Hyperparameters)


def test_the_low_file_spells_out_the_defaults() -> None:
    assert asdict(read_hyperparameters("scratch-low", Silent())) == asdict(Hyperparameters())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr0: fast\n", "lr0 must be a number"),
        ("lr0: -1\n", "lr0 must be a number"),
        ("lr0: .nan\n", "lr0 must be a number"),
        ("mosaic: 1.5\n", "mosaic must be from 0 to 1"),
        ("learning_rate: 1\n", "unknown key learning_rate"),
        ("copy_paste: 0.5\n", "copy_paste is not supported"),
        ("nominal_batch: 0\n", "nominal_batch"),
        ("anchor_t: 1\n", "anchor_t"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_hyperparameters(str(path), Silent())
    assert str(path) in str(caught.value)


def test_an_older_file_is_understood(tmp_path: Path) -> None:
    warned: list[str] = []

    class Hearing(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    path = tmp_path / "hyp.yaml"
    path.write_text("lr0: 0.02\niou_t: 0.2\ncopy_paste: 0.0\n")
    assert read_hyperparameters(str(path), Hearing()).lr0 == 0.02
    assert [w for w in warned if "iou_t has no effect" in w]
