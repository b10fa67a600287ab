"""`yolo train --compile`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_train_run import options
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.progress import Silent
from yolo_cli.train.compiling import check_compiler
from yolo_cli.weights.load import load_weights

# Three convolutions, because each layer takes seconds to compile.
THREE = {
    **{"nc": 3, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13, 33, 23]]},
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[2], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.mark.slow
def test_losses_and_names_are_those_of_a_run_without_it(small: Path, tmp_path: Path) -> None:
    """24 images in batches of 10: the last batch of an epoch has 4, for which nothing is compiled."""
    write_mapping(tmp_path / "three.yaml", THREE)
    words = (
        f"--data {small} --cfg {tmp_path / 'three.yaml'} --img 64 --batch 10 --epochs 2 --workers 0 --noplots --noval"
    )
    command = [sys.executable, "-m", "yolo_cli", "train", *words.split(), "--optimizer", "SGD", "--device", "cpu"]
    command += ["--noautoanchor", "--project", str(tmp_path)]
    losses, states = [], []
    for name, more in (("eager", []), ("compiled", ["--compile"])):
        done = subprocess.run(
            [*command, "--name", name, *more], capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr
        rows = (tmp_path / name / "results.csv").read_text().splitlines()[1:]
        losses.append([float(cell) for row in rows for cell in row.split(",")[1:4]])
        states.append(load_weights(tmp_path / name / "weights/last.pt").state)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert list(states[1]) == list(states[0])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_missing_compiler_is_one_line(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--compile: torch\.compile needs a C\+\+ compiler, and there is none"):
        train(options(small, tmp_path / "runs", compile=True), Silent())
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("CXX", "nosuch++")
    with pytest.raises(UserError, match=r"there is no C\+\+ compiler nosuch\+\+"):
        check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("other", [{"multi_scale": True}, {"rect": True}])
def test_images_of_varying_size_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="compiled for one size"):
        TrainConfig(compile=True, **other)
