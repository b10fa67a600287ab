"""Options, help, version, and the messages of mistakes on the command line."""

import errno
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from tests.command_configs import CONFIGS
from yolo_cli import __version__
from yolo_cli.cli.app import app, main
from yolo_cli.cli.arguments import normalize, parse_img, parse_numbers
from yolo_cli.config import (
    CompareConfig,
    ReportConfig,
    SplitConfig,
)


def options(command: str) -> dict[str, object]:
    group = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in group.commands[command].params if parameter.name != "help"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", CONFIGS)
def test_options_are_the_fields_of_the_config(command: str) -> None:
    config = CONFIGS[command]
    parameters = options(command)
    assert set(parameters) == {field.name for field in fields(config)}
    for field in fields(config):
        default = parameters[field.name].default  # type: ignore[attr-defined]
        assert default == field.default, field.name
        assert f"--{field.name.replace('_', '-')}" in parameters[field.name].opts, field.name  # type: ignore[attr-defined]


def test_options_of_compare_are_the_fields_of_its_config() -> None:
    parameters = options("compare")
    assert set(parameters) == {field.name for field in fields(CompareConfig)}
    for field in fields(CompareConfig):
        if field.name != "recipes":
            assert parameters[field.name].default == field.default, field.name  # type: ignore[attr-defined]


def test_options_of_split_are_the_fields_of_its_config() -> None:
    parameters = options("split")
    assert set(parameters) == {field.name for field in fields(SplitConfig)}
    for field in fields(SplitConfig):
        if field.name != "images":
            assert parameters[field.name].default == field.default, field.name  # type: ignore[attr-defined]


def test_options_of_report_are_the_fields_of_its_config() -> None:
    parameters = options("report")
    assert set(parameters) == {field.name for field in fields(ReportConfig)}
    for field in fields(ReportConfig):
        if field.name != "run":
            assert parameters[field.name].default == field.default, field.name  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [*CONFIGS, "compare", "report"])
def test_every_option_is_explained(command: str) -> None:
    for name, parameter in options(command).items():
        assert parameter.help, name  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "alias", "field", "expected"),
    [
        ("train", ["--batch-size", "4"], "batch", 4),
        ("train", ["--batch-size=4"], "batch", 4),
        ("train", ["--imgsz", "640", "384"], "img", (640, 384)),
        ("train", ["--img-size", "320"], "img", (320, 320)),
        ("val", ["--batch-size", "4"], "batch", 4),
        ("val", ["--conf-thres", "0.1"], "conf", 0.1),
        ("val", ["--iou-thres", "0.5"], "iou", 0.5),
        ("val", ["--imgsz", "640"], "img", (640, 640)),
        ("val", ["--referee"], "pycocotools", True),
        ("detect", ["--conf-thres=0.1"], "conf", 0.1),
        ("detect", ["--conf-thres", "auto,person=0.4"], "conf", "auto,person=0.4"),
        ("detect", ["--iou-thres", "0.5"], "iou", 0.5),
        ("detect", ["--imgsz", "640"], "img", (640, 640)),
        ("detect", ["--img-size", "640"], "img", (640, 640)),
        ("detect", ["--batch-size", "2"], "batch", 2),
        ("detect", ["--show"], "view_img", True),
        ("export", ["--batch-size", "2"], "batch", 2),
        ("export", ["--conf-thres", "0.1"], "conf", 0.1),
        ("export", ["--iou-thres", "0.5"], "iou", 0.5),
        ("export", ["--imgsz", "320"], "img", (320, 320)),
        ("benchmark", ["--imgsz", "320"], "img", (320, 320)),
        ("anchors", ["--imgsz", "320"], "img", (320, 320)),
        ("info", ["--imgsz", "320"], "img", (320, 320)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_aliases_work_and_are_not_listed(command: str, alias: list[str], field: str, expected: object) -> None:
    parser = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    context = parser.make_context(command, normalize(alias))
    assert context.params[field] == expected
    assert alias[0].partition("=")[0] not in re.findall(r"--[a-z-]+", parser.get_help(context))


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["train", "--img", "640", "384", "--epochs", "3"], ["train", "--img", "640,384", "--epochs", "3"]),
        (["train", "--imgsz", "640"], ["train", "--img", "640"]),
        (["train", "--freeze", "0", "1", "2", "--rect"], ["train", "--freeze", "0,1,2", "--rect"]),
        (["train", "--cache", "--rect"], ["train", "--cache", "ram", "--rect"]),
        (["train", "--cache", "disk"], ["train", "--cache", "disk"]),
        (["train", "--resume"], ["train", "--resume", "newest"]),
        (["detect", "--classes", "0", "2", "--tile"], ["detect", "--classes", "0,2", "--tile", "-1"]),
        (["detect", "--tile", "--source", "0"], ["detect", "--tile", "-1", "--source", "0"]),
        (["detect", "--tile", "320"], ["detect", "--tile", "320"]),
        (["detect", "--tile", "-1"], ["detect", "--tile", "-1"]),
        (["detect", "--tile", "-x"], ["detect", "--tile", "-1", "-x"]),
        (["train", "--resume", "runs/exp"], ["train", "--resume", "runs/exp"]),
    ],
)
def test_repeated_and_missing_values(given: list[str], parsed: list[str]) -> None:
    assert normalize(given) == parsed


@pytest.mark.parametrize(("text", "size"), [("640", (640, 640)), ("640,384", (640, 384)), ("640x384", (640, 384))])
def test_image_sizes_are_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert parse_img(text) == size


@pytest.mark.parametrize("text", ["a", "1.5", "1;2"])
def test_text_that_is_not_an_integer_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_numbers(text)


def status_of(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    "arguments",
    [
        ["vall"],
        ["val", "--bogus", "1"],
        ["val", "--batch", "many"],
        ["train", "--img", "1,2,3"],
        ["train", "--epochs"],
        ["train", "--epochs", "0"],
        ["train", "--batch", "0"],
        ["train", "--optimizer", "LAMB"],
        ["train", "--cfg", "yolov99"],
        ["train", "--hyp", "nowhere.yaml"],
        ["train", "--data", "nowhere.yaml"],
        ["train", "--cache", "tape"],
        ["train", "--device", "tpu"],
        ["train", "--device", "99"],
        ["train", "--label-smoothing", "1"],
        ["train", "--image-weights", "--rect"],
        ["train", "--resume"],
        ["train", "--weights", "yolov5s.pt"],
        ["val", "--weights", "yolov5s.pt"],
        ["val", "--conf", "2"],
        ["val", "--min-precision", "2"],
        ["val", "--beta", "nan"],
        ["detect", "--conf", "high"],
        ["export", "--conf", "person=2"],
        ["val", "--task", "all"],
        ["val", "--half"],
        ["val", "--save-conf"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if not line.startswith("warning")]) == 1
    assert lines[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())  # no run folder for a run that never was


def test_val_without_weights_names_yolo_train(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(["val", "--data", "shapes"]) == 2
    assert "yolo train" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--version"]) == 0
    assert capsys.readouterr().out == f"yolo_cli {__version__}\n"
    assert status_of(["--help"]) == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["yolo"], ["yolo-cli"], [sys.executable, "-m", "yolo_cli"]], ids=" ".join)
def test_all_ways_to_start_it(command: list[str]) -> None:
    folder = Path(sys.executable).parent
    program = [str(folder / command[0]), *command[1:]] if len(command) == 1 else command
    output = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert output == f"yolo_cli {__version__}\n"


def test_help_does_not_wait_for_the_heavy_packages() -> None:
    code = (
        "import sys; from yolo_cli.cli.app import app; "
        "print([m for m in ('torch', 'torchvision', 'cv2', 'matplotlib', 'numpy', 'tensorboard') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.strip() == "[]"


def test_a_full_device_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/exp/labels.jpg")

    monkeypatch.setattr("yolo_cli.cli.app.app", full)
    assert status_of(["train"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: runs/exp/labels.jpg: cannot be written")
    assert error.count("\n") == 1
