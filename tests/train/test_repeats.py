"""`yolo train --repeats`: a group of runs with consecutive seeds, also if it is interrupted."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recording import Recording
from yolo_cli.commands.compare import _members
from yolo_cli.commands.train import run as train
from yolo_cli.commands.train_repeats import METRICS, RepeatsResult, run_repeats
from yolo_cli.config import TrainConfig
from yolo_cli.errors import StoppedError, UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Bar, Silent
from yolo_cli.weights.load import load_weights

GIVEN = frozenset(("cfg", "data", "img", "epochs", "batch", "workers", "project", "noplots", "device", "repeats"))


def options(data: Path, folder: Path, **changes: Any) -> TrainConfig:
    base = {"cfg": str(data.parent / "tiny.yaml"), "data": str(data), "img": (64, 64), "epochs": 2, "batch": 8}
    base |= {"workers": 0, "project": str(folder), "noplots": True, "device": "cpu", "repeats": 2}
    return TrainConfig(**(base | changes))


def repeat(config: TrainConfig, reporter: Silent | None = None, given: frozenset[str] = GIVEN) -> RepeatsResult:
    result = run_repeats(config, reporter or Silent(), given=given)
    assert isinstance(result, RepeatsResult)
    return result


def state(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_weights(run / "weights/last.pt").state)


def same(a: Path, b: Path) -> bool:
    first, second = state(a), state(b)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


class Interrupting(Recording):
    """Sends Ctrl-C when an epoch of a certain run begins."""

    def __init__(self, run: int, epoch: int) -> None:
        super().__init__()
        self.run, self.epoch, self.armed = run, epoch, False

    def info(self, text: str) -> None:
        super().info(text)
        if text.startswith("run "):
            self.armed = text.startswith(f"run {self.run} ")

    def bar(self, total: int, title: str) -> AbstractContextManager[Bar]:
        if self.armed and title.startswith(f"epoch {self.epoch}/"):
            signal.raise_signal(signal.SIGINT)
        return super().bar(total, title)


@pytest.fixture(scope="module")
def group(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs that were not interrupted."""
    folder = tmp_path_factory.mktemp("group")
    repeat(options(small, folder))
    return folder


@pytest.mark.slow
def test_each_run_is_what_a_single_training_with_its_seed_is(group: Path, small: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in group.iterdir()) == ["exp", "exp-seed1"]
    assert [read_mapping(group / name / "opt.yaml")["seed"] for name in ("exp", "exp-seed1")] == [0, 1]
    single = options(small, tmp_path, seed=1, repeats=1)
    train(single, Silent())
    assert same(group / "exp-seed1", tmp_path / "exp")
    assert not same(group / "exp", tmp_path / "exp")


def test_report_has_mean_and_standard_error(group: Path) -> None:
    report = json.loads((group / "exp/repeats.json").read_text())
    values = [json.loads((group / name / "results.json").read_text())["metrics"] for name in ("exp", "exp-seed1")]
    for metric in METRICS:
        table = np.array([one[metric] for one in values])
        assert report["mean"][metric] == pytest.approx(table.mean())
        assert report["standard_error"][metric] == pytest.approx(table.std(ddof=1) / np.sqrt(2))
    assert [one["folder"] for one in report["runs"]] == ["exp", "exp-seed1"]
    assert report["best"] == max(zip(values, ("exp", "exp-seed1"), strict=True), key=lambda p: p[0]["mAP_0.5:0.95"])[1]


@pytest.mark.slow
def test_an_interrupted_second_run_is_continued_and_missing_ones_are_trained(
    group: Path, small: Path, tmp_path: Path
) -> None:
    reporter = Interrupting(run=2, epoch=2)
    with pytest.raises(StoppedError):
        run_repeats(options(small, tmp_path, repeats=3), reporter, given=GIVEN)
    assert reporter.lines[-1].endswith(f"yolo train --repeats 3 --resume {tmp_path / 'exp'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "exp-seed1"]
    first = (tmp_path / "exp/weights/last.pt").stat().st_mtime_ns
    assert not (tmp_path / "exp/repeats.json").exists()

    # Named by the run that was interrupted, which is also the newest.
    again = TrainConfig(resume=str(tmp_path / "exp-seed1"), repeats=3)
    recording = Recording()
    result = repeat(again, recording, frozenset(("resume", "repeats")))
    assert [folder.name for folder in result.folders] == ["exp", "exp-seed1", "exp-seed2"]
    assert f"run 1 of 3, seed 0: {tmp_path / 'exp'} is finished" in recording.lines
    assert (tmp_path / "exp/weights/last.pt").stat().st_mtime_ns == first
    assert same(group / "exp-seed1", tmp_path / "exp-seed1")
    third = read_mapping(tmp_path / "exp-seed2/opt.yaml")
    assert (third["seed"], third["epochs"], third["img"]) == (2, 2, [64, 64])
    assert len(json.loads((tmp_path / "exp/repeats.json").read_text())["runs"]) == 3


@pytest.mark.slow
def test_a_finished_group_only_reports_and_more_epochs_extend_every_run(
    group: Path, small: Path, tmp_path: Path
) -> None:
    reporter = Recording()
    repeat(TrainConfig(resume=str(group / "exp"), repeats=2), reporter, frozenset(("resume", "repeats")))
    assert sum(line.endswith("is finished") for line in reporter.lines) == 2
    repeat(options(small, tmp_path, epochs=1))
    longer = TrainConfig(resume=str(tmp_path / "exp"), repeats=2, epochs=2)
    repeat(longer, given=frozenset(("resume", "repeats", "epochs")))
    for name in ("exp", "exp-seed1"):
        assert json.loads((tmp_path / name / "results.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_a_group_gets_a_name_that_none_of_its_runs_has(small: Path, tmp_path: Path) -> None:
    (tmp_path / "exp-seed1").mkdir()
    result = repeat(options(small, tmp_path, epochs=1))
    assert [folder.name for folder in result.folders] == ["exp2", "exp2-seed1"]
    again = repeat(options(small, tmp_path, epochs=1, name="exp2", exist_ok=True))
    assert again.folders == result.folders
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp-seed1", "exp2", "exp2-seed1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, run: replace(config, resume=run, batch=4), "options differ from the first run's: --batch 4"),
        (lambda config, run: replace(config, resume=run + "-none"), r"contains no weights/last\.pt"),
    ],
)
def test_what_cannot_be_continued_is_one_line(
    group: Path, small: Path, change: Callable[[TrainConfig, str], TrainConfig], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_repeats(change(options(small, group), str(group / "exp")), Silent(), given=GIVEN | {"resume"})


def test_repeats_are_refused_inside_a_job_of_a_launcher(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"--repeats: trains several runs.*without torchrun"):
        run_repeats(options(small, tmp_path), Silent(), given=GIVEN)
    with pytest.raises(UserError, match="--repeats 0"):
        TrainConfig(repeats=0)


def test_compare_takes_a_group(group: Path, tmp_path: Path) -> None:
    runs = [group / name / "weights/best.pt" for name in ("exp", "exp-seed1")]
    assert _members(str(group / "exp*")) == runs
    assert _members(str(group / "exp{,-seed*}")) == runs
    with pytest.raises(UserError, match="matches nothing"):
        _members(str(tmp_path / "exp{,-seed*}"))


@pytest.mark.slow
def test_each_run_can_have_several_devices(small: Path, tmp_path: Path) -> None:
    """The command line of several processes, and how it continues after Ctrl-C in the second run."""
    words = "--cfg n --hyp shapes --img 64 --batch 4 --workers 0 --noplots --noautoanchor --epochs 1 --repeats 2"
    command = [*[sys.executable, "-m", "yolo_cli", "train"], *words.split(), "--data", str(small)]
    done = subprocess.run(
        [*command, "--project", str(tmp_path), "--device", "cpu,cpu"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "exp-seed1"]
    assert read_mapping(tmp_path / "exp-seed1/opt.yaml")["seed"] == 1
    assert "mean ± standard error" in done.stdout
    assert not same(tmp_path / "exp", tmp_path / "exp-seed1")
