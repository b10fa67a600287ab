"""Configs refuse bad values by themselves, with the line that the command line prints."""

from dataclasses import replace
from typing import Any

import pytest

from tests.command_configs import CONFIGS
from yolo_cli.cli.app import main
from yolo_cli.config import (
    AnchorsConfig,
    DetectConfig,
    ExportConfig,
    Hyperparameters,
    TrainConfig,
)
from yolo_cli.errors import UserError
from yolo_cli.inference.predictor import Settings

BAD: list[tuple[str, dict[str, Any]]] = [
    ("train", {"epochs": 0}),
    ("train", {"batch": 0}),
    ("train", {"batch": -2}),
    ("train", {"workers": -2}),
    ("train", {"patience": -1}),
    ("train", {"save_period": -2}),
    ("train", {"save_every": -1}),
    ("train", {"save_minutes": -0.5}),
    ("train", {"save_minutes": float("nan")}),
    ("train", {"seed": -1}),
    ("train", {"seed": 2**63}),
    ("train", {"img": (0, 640)}),
    ("train", {"cache": "tape"}),
    ("train", {"loss": "focal"}),
    ("train", {"nan_policy": "ignore"}),
    ("train", {"optimizer": "LAMB"}),
    ("train", {"label_smoothing": 1.0}),
    ("train", {"image_weights": True, "rect": True}),
    ("val", {"conf": 2.0}),
    ("val", {"iou": -0.1}),
    ("val", {"conf": float("nan")}),
    ("val", {"batch": 0}),
    ("val", {"max_det": 0}),
    ("val", {"task": "all"}),
    ("val", {"save_conf": True}),
    ("detect", {"conf": 1.5}),
    ("detect", {"batch": -1}),
    ("detect", {"tile": 31}),
    ("detect", {"tile": -2}),
    ("detect", {"vid_stride": 0}),
    ("detect", {"line_thickness": -1}),
    ("detect", {"save_conf": True}),
    ("info", {"img": (16385, 640)}),
    ("export", {"opset": 16}),
    ("export", {"half": True, "int8": True}),
    ("export", {"int8": True}),
    ("export", {"batch": 0}),
    ("benchmark", {"images": 0}),
    ("benchmark", {"half": True, "int8": True}),
    ("anchors", {"n": 1001}),
    ("anchors", {"thr": 1.0}),
    ("anchors", {"thr": float("nan")}),
    ("anchors", {"gen": -1}),
    ("anchors", {"task": "all"}),
]


def words(options: dict[str, Any]) -> list[str]:
    """Options as they are written on a command line."""
    result = []
    for name, value in options.items():
        result.append(f"--{name.replace('_', '-')}")
        if value is not True:
            result.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return result


@pytest.mark.parametrize(("command", "options"), BAD, ids=[f"{c} {' '.join(words(o))}" for c, o in BAD])
def test_bad_values_are_refused_alike_in_python_and_on_the_command_line(
    command: str, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as caught:
        CONFIGS[command](**options)
    with pytest.raises(SystemExit) as ended:
        main([command, *words(options)])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"
    for name in options:
        assert f"--{name.replace('_', '-')}" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(batch=-1, optimizer="adamw", cache="disk", save_period=-1, workers=-1),
        DetectConfig(tile=-1, batch=0, conf=0, iou=1),
        DetectConfig(tile=32),
        AnchorsConfig(n=0),
        ExportConfig(int8=True, data="coco128"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_values_with_a_meaning_of_their_own_are_taken(config: object) -> None:
    assert config


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(UserError, match="--epochs 0"):
        replace(TrainConfig(), epochs=0)


@pytest.mark.parametrize("bad", [{"lr0": -1}, {"momentum": 1}, {"mosaic": 1.5}, {"anchor_t": 1}, {"lr0": float("inf")}])
def test_bad_hyperparameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Hyperparameters(**bad)


@pytest.mark.parametrize("bad", [{"conf": 2}, {"max_det": 0}, {"tile": 5}, {"img": (0, 0)}])
def test_bad_prediction_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Settings(**bad)
