import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yolo_cli.config import TrainConfig
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.run.folder import create_run_dir, newest_weights, write_json, write_options


def test_folders_are_numbered(tmp_path: Path) -> None:
    names = [create_run_dir(str(tmp_path), "exp", exist_ok=False).name for _ in range(3)]
    assert names == ["exp", "exp2", "exp3"]


def test_simultaneous_runs_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: create_run_dir(str(tmp_path), "exp", exist_ok=False), range(64)))
    assert len(set(folders)) == 64


def test_exist_ok_uses_the_folder_that_is_there(tmp_path: Path) -> None:
    first = create_run_dir(str(tmp_path), "exp", exist_ok=True)
    (first / "mine.txt").write_text("kept")
    assert create_run_dir(str(tmp_path), "exp", exist_ok=True) == first
    assert (first / "mine.txt").read_text() == "kept"


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "exp").write_text("mine")
    assert create_run_dir(str(tmp_path), "exp", exist_ok=True).name == "exp2"
    assert (tmp_path / "exp").read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_with_a_slash_or_without_letters_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        create_run_dir(str(tmp_path), name, exist_ok=False)


def test_a_project_below_a_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        create_run_dir(str(tmp_path / "file" / "runs"), "exp", exist_ok=False)


def test_an_unwritable_project_is_one_clear_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        place = "/proc/runs"  # root writes anywhere else
    else:
        (tmp_path / "locked").mkdir(mode=0o555)
        place = str(tmp_path / "locked" / "runs")
    with pytest.raises(UserError, match="give another --project"):
        create_run_dir(place, "exp", exist_ok=False)


def test_the_newest_weights_are_those_written_last(tmp_path: Path) -> None:
    for number, name in enumerate(("exp", "exp10", "exp2")):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        (weights / "best.pt").write_bytes(b"")
        os.utime(weights / "best.pt", (1000 + number, 1000 + number))
    assert newest_weights(str(tmp_path)) == tmp_path / "exp2/weights/best.pt"
    with pytest.raises(UserError, match="--weights FILE"):
        newest_weights(str(tmp_path / "exp"))


def test_options_are_written_to_yaml(tmp_path: Path) -> None:
    write_options(tmp_path / "opt.yaml", TrainConfig(img=(640, 384), freeze=(1, 2)))
    read = read_mapping(tmp_path / "opt.yaml")
    assert read["img"] == [640, 384]
    assert read["freeze"] == [1, 2]
    assert set(read) == set(TrainConfig.__dataclass_fields__)


def test_numbers_that_are_not_finite_become_null_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": None}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_a_file_name_of_any_bytes_can_be_written_to_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    write_json(tmp_path / "a.json", {"file": name})
    assert json.loads((tmp_path / "a.json").read_text())["file"] == name
