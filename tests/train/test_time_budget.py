"""`--time`: as many epochs as fit."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recording import Recording
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.config.checks import parse_duration
from yolo_cli.errors import StoppedError, UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Silent
from yolo_cli.train.loop import Trainer
from yolo_cli.train.time_budget import TimeBudget


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1d", 86400), (" 2H ", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "m30", "0s", "-5m", "1h 30m x", "inf", "30m1h", " "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--time"):
        TrainConfig(time=text)


@given(st.floats(1, 1e5), st.integers(1, 50), st.integers(1, 50), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_plan_fits_into_the_budget(seconds: float, done: int, planned: int, training: float, val: float) -> None:
    budget = TimeBudget(seconds, time.perf_counter(), spent=done * (training + val))
    budget.record(training, val)
    epochs = budget.plan(done, 0)
    assert epochs >= done
    if epochs > done:
        assert epochs * (training + val) + 1.5 * val < seconds
        assert (epochs + 2) * (training + val) + 1.5 * val + 5.1 > seconds  # and nothing is left unused
    assert budget.plan(done, planned) <= max(epochs, planned)


def options(small: Path, folder: Path, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {"data": str(small), "cfg": str(small.parent / "tiny.yaml"), "img": (32, 32), "batch": 4}
    base |= {"workers": 0, "noplots": True, "noautoanchor": True, "project": str(folder)}
    return TrainConfig(**(base | changes))


@pytest.mark.slow
def test_a_run_ends_in_time_and_plans_the_schedule_for_it(small: Path, tmp_path: Path) -> None:
    reporter = Recording()
    result = train(options(small, tmp_path, time="12s"), reporter)
    assert result.seconds < 12
    assert result.epochs == read_mapping(tmp_path / "exp/opt.yaml")["epochs"] > 1
    assert any(f"--time 12s: {result.epochs} epochs fit" in text for text in reporter.lines)
    last = (tmp_path / "exp/results.csv").read_text().splitlines()[-1].split(",")
    hyp = read_mapping(tmp_path / "exp/hyp.yaml")
    assert float(last[11]) < 0.5 * hyp["lr0"]  # the learning rate has fallen


@pytest.mark.slow
def test_an_interrupted_run_continues_its_plan(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer.train_epoch

    def interrupted(self: Trainer, epoch: int, *args: Any) -> list[float]:
        if epoch == 1:
            self.checkpoints.save()
            raise StoppedError(15)
        return original(self, epoch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", interrupted)
        with pytest.raises(StoppedError):
            train(options(small, tmp_path, time="45s"), Silent())
    planned = read_mapping(tmp_path / "exp/opt.yaml")["epochs"]
    assert planned > 1
    time.sleep(3)  # a pause does not count
    result = train(TrainConfig(resume=str(tmp_path / "exp")), Silent())
    assert 2 <= result.epochs <= planned  # fewer where the machine has become slower


def test_time_and_epochs_exclude_each_other(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--time --epochs: exclude each other"):
        train(options(small, tmp_path, time="1m", epochs=3), Silent())
