import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from yolo_cli.config import Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.progress import Silent
from yolo_cli.train.hyperparameters import HypChoice, read_hyperparameters


@pytest.mark.parametrize("name", assets.names("data/hyp"))
def test_every_shipped_file_is_read(name: str) -> None:
    assert isinstance(read_hyperparameters(name, Silent()).with_defaults(), Hyperparameters)


@pytest.mark.parametrize(("name", "case"), [("yolov7-small", "ota"), ("yolov7-large", "aux_ota")])
def test_yolov7_files_hold_the_published_values(reference_file: Callable[[str], Path], name: str, case: str) -> None:
    published = json.loads(reference_file("reference/loss/yolov7_cases.json").read_text())["cases"][case]["hyp"]
    mine = asdict(read_hyperparameters(name, Silent(), "ota").with_defaults())
    shared = mine.keys() & published.keys()
    assert published.keys() - shared == {"iou_t", "copy_paste", "paste_in", "loss_ota"}
    assert {key: mine[key] for key in shared} == {key: published[key] for key in shared}


@pytest.mark.parametrize(("value", "loss", "agrees"), [(1, "ota", True), (0, "anchor", True), (1, "anchor", False)])
def test_loss_ota_in_a_file_must_agree_with_the_option(tmp_path: Path, value: int, loss: str, agrees: bool) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text(f"loss_ota: {value}\n")
    if agrees:
        assert read_hyperparameters(str(path), Silent(), loss).with_defaults() == Hyperparameters()
    else:
        with pytest.raises(UserError, match="--loss ota"):
            read_hyperparameters(str(path), Silent(), loss)


def test_scratch_low_equals_the_defaults() -> None:
    assert asdict(read_hyperparameters("scratch-low", Silent()).with_defaults()) == asdict(Hyperparameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: fast\n", "lr0 must be a number"),
        ("lr0: -1\n", "lr0 must be a number"),
        ("lr0: .nan\n", "lr0 must be a number"),
        ("mosaic: 1.5\n", "mosaic must be from 0 to 1"),
        ("learning_rate: 1\n", "unknown key learning_rate"),
        ("copy_paste: 0.5\n", "copy_paste is not supported"),
        ("loss_ota: [1]\n", "loss_ota must be 0 or 1"),
        ("nominal_batch: 0\n", "nominal_batch"),
        ("anchor_t: 1\n", "anchor_t"),
    ],
)
def test_an_invalid_value_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_hyperparameters(str(path), Silent())
    assert str(path) in str(caught.value)


def test_keys_of_older_files_are_accepted(tmp_path: Path) -> None:
    warned: list[str] = []

    class Hearing(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    path = tmp_path / "hyp.yaml"
    path.write_text("lr0: 0.02\niou_t: 0.2\ncopy_paste: 0.0\n")
    assert read_hyperparameters(str(path), Hearing()).with_defaults().lr0 == 0.02
    assert [w for w in warned if "iou_t has no effect" in w]


@pytest.mark.parametrize(
    ("text", "automatic", "values"),
    [
        ("auto", True, {}),
        ("auto,lr0=0.002,mosaic=0.5", True, {"lr0": 0.002, "mosaic": 0.5}),
        ("close_mosaic=2", True, {"close_mosaic": 2}),
        (" lr0 = 1e-3 , mixup=0", True, {"lr0": 0.001, "mixup": 0.0}),
    ],
)
def test_single_values_go_with_the_automatic_choice(text: str, automatic: bool, values: dict[str, float]) -> None:
    assert read_hyperparameters(text, Silent()) == HypChoice(automatic, values)


def test_single_values_win_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a,b=1.yaml"  # a name that looks like single values
    path.write_text("lr0: 0.5\n")
    assert read_hyperparameters(str(path), Silent()) == HypChoice(values={"lr0": 0.5})
    low = read_hyperparameters("scratch-low,lr0=0.02", Silent()).with_defaults()
    assert low == replace(Hyperparameters(), lr0=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auto,lr0", "'lr0' is not NAME=VALUE"),
        ("auto,lr0=fast", "lr0 must be a number, not 'fast'"),
        ("lr0=nan", "lr0 must be a number"),
        ("lr=0.1", "unknown key lr"),
        ("lr0=1,lr0=2", "lr0 is given twice"),
        ("close_mosaic=1.5", "close_mosaic must be a whole number"),
        ("scratch-low,mosaic=2", "mosaic must be from 0 to 1"),
        ("auto,mosaic=2", "mosaic must be from 0 to 1"),
        ("nowhere,lr0=0.1", "no such file"),
    ],
)
def test_a_wrong_single_value_is_reported(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_hyperparameters(text, Silent())
    assert "--hyp" in str(caught.value)
