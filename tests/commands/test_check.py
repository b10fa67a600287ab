"""`yolo check` as a user runs it: exit status, table and JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recording import Recording
from yolo_cli.commands import check
from yolo_cli.config import CheckConfig
from yolo_cli.errors import UserError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`yolo check` in a process of its own."""
    command = [sys.executable, "-m", "yolo_cli", "check", "--no-advice", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def separate_splits(data: Path) -> None:
    """Give the fixture's dataset a val split of its own."""
    for kind in ("images", "labels"):
        (data.parent / "data" / kind / "val").mkdir()
        for i in range(6):
            name = f"{i}.{'png' if kind == 'images' else 'txt'}"
            (data.parent / "data" / kind / "train" / name).rename(data.parent / "data" / kind / "val" / name)
    data.write_text("path: data\ntrain: images/train\nval: images/val\nnames: [circle]\n")
    for file in (data.parent / "data/labels").rglob("*.txt"):
        file.write_text("0 " + file.read_text()[2:])


def test_exit_status(data: Path) -> None:
    def status(*, strict: bool) -> int:
        return check.run(CheckConfig(str(data), advice=False, html=False, workers=1), Recording()).status(strict=strict)

    assert status(strict=False) == 2  # train and val are one folder
    separate_splits(data)
    assert (status(strict=False), status(strict=True)) == (0, 1)


@pytest.mark.slow
def test_json_is_all_of_standard_output(data: Path) -> None:
    separate_splits(data)
    (data.parent / "data/labels/train/9.txt").write_text("7 .5 .5 .2 .2\n")
    ended = run("--data", str(data), "--json")
    assert ended.returncode == 2
    printed = json.loads(ended.stdout)
    assert printed == json.loads(Path("runs/check/check.json").read_text())
    assert (printed["errors"], printed["splits"]["train"]["images"]) == (1, 6)
    finding = next(each for each in printed["findings"] if each["severity"] == "error")
    assert (finding["code"], finding["count"], finding["items"][0]["line"]) == ("label-class", 1, 1)
    assert finding["why"]
    assert finding["fix"]


def test_the_dataset_is_only_read(data: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in (data.parent / "data").rglob("*"))

    before = state()
    check.run(CheckConfig(str(data), advice=False, workers=1), Recording())
    assert state() == before


def test_a_folder_that_cannot_be_written(data: Path) -> None:
    Path("taken").write_text("a file")
    with pytest.raises(UserError, match="taken: run folder cannot be created"):
        check.run(CheckConfig(str(data), project="taken"), Recording())


def test_suspected_label_errors_need_weights_that_fit(data: Path, ours: Path) -> None:
    separate_splits(data)
    with pytest.raises(UserError, match="has 3 classes"):
        check.run(CheckConfig(str(data), weights=str(ours), html=False, advice=False, workers=0), Recording())
    with pytest.raises(UserError, match="matches nothing"):
        check.run(CheckConfig(str(data), weights="runs/none*", html=False, advice=False, workers=0), Recording())


def test_predictions_of_weights(data: Path, ours: Path) -> None:
    reporter = Recording()
    config = CheckConfig(str(data), weights=f"{ours},{ours}", img=(64, 64), html=False, advice=False, workers=0)
    result = check.run(config, reporter)
    assert any("it is not known which images it was trained on" in line for line in reporter.lines)
    assert any("24 images may have been trained on by all" in line for line in reporter.lines)
    assert {finding.code for finding in result.findings if finding.severity == "suspect"}
