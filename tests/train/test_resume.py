"""A run that is interrupted anywhere and resumed ends with the same bits. Changes in between are reported."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recording import Recording
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.errors import StoppedError, UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.loss.detection import LossOutput
from yolo_cli.progress import Silent
from yolo_cli.train.loop import Trainer
from yolo_cli.train.step import TrainStep
from yolo_cli.weights.load import load_weights


def config(data: Path, folder: Path, **changes: Any) -> TrainConfig:
    base = {"data": str(data), "cfg": str(data.parent / "tiny.yaml"), "hyp": "shapes"}
    base |= {"epochs": 3, "batch": 4, "img": (32, 32), "workers": 0}
    base |= {"noplots": True, "project": str(folder), "noautoanchor": True, "save_every": 1, "seed": 5}
    return TrainConfig(**(base | changes))


@pytest.fixture(autouse=True)
def no_other_random_numbers(unchecked_shapes: None) -> None:
    """The checker of annotated shapes uses Python's random generator, whose state is compared here."""


class CutError(Exception):
    """Stands for a power failure."""


def cut(options: TrainConfig, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Train, and raise in the middle of a step after `after` complete ones."""
    steps = 0
    original = TrainStep.run

    def run(self: TrainStep, *args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > after:
            raise CutError
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "run", run)
        with pytest.raises(CutError):
            train(options, Silent())


def state(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "weights/last.pt", weights_only=True)
    content["training"].pop("options")
    return content


def assert_same(a: Any, b: Any, place: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}/{i}")
    else:
        assert a == b, place


CASES = [
    pytest.param(3, {}, marks=pytest.mark.slow),  # in the middle of the first epoch
    pytest.param(6, {}, marks=pytest.mark.slow),  # between two epochs
    pytest.param(8, {"optimizer": "AdamW", "image_weights": True}, marks=pytest.mark.slow),
    pytest.param(9, {"multi_scale": True, "rect": True}, marks=pytest.mark.slow),
    pytest.param(10, {"hyp": "auto"}, marks=pytest.mark.slow),
    pytest.param(8, {"tile": 64}, marks=pytest.mark.slow),
    pytest.param(8, {"hyp": "auto,mosaic=1,mosaic_window=6"}, marks=pytest.mark.slow),
    (7, {"save_every": 5, "batch": 2}),  # between two saved states, with accumulated gradients
]


@pytest.mark.parametrize(("after", "changes"), CASES)
def test_an_interrupted_run_ends_with_the_same_bits(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, changes: dict[str, Any]
) -> None:
    options = config(small, tmp_path, **changes)
    train(dataclasses.replace(options, name="whole"), Silent())
    cut(dataclasses.replace(options, name="cut"), monkeypatch, after)
    torch.manual_seed(99)  # a new process begins with another state
    np.random.seed(99)
    train(TrainConfig(resume=str(tmp_path / "cut")), Silent())
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    csv = [(tmp_path / run / "results.csv").read_bytes() for run in ("whole", "cut")]
    assert csv[0] == csv[1]
    best = [load_weights(tmp_path / run / "weights/best.pt") for run in ("whole", "cut")]
    assert_same(dict(best[0].state), dict(best[1].state))


@pytest.fixture
def cut_run(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted in its second epoch, with its data beside it."""
    data = tmp_path / "data"
    shutil.copytree(small.parent, data)
    cut(config(data / "data.yaml", tmp_path / "runs"), monkeypatch, after=8)
    return tmp_path / "runs/exp"


@pytest.mark.parametrize("harm", ["flipped bit", "cut short", "empty"])
def test_a_damaged_state_is_reported_and_the_previous_one_used(cut_run: Path, harm: str) -> None:
    path = cut_run / "weights/last.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flipped bit": bytes(data), "cut short": bytes(data[: len(data) // 2]), "empty": b""}[harm])
    reporter = Recording()
    train(TrainConfig(resume=str(cut_run)), reporter)
    (line,) = [line for line in reporter.lines if "last_previous.pt" in line]
    assert str(path) in line
    assert f"continuing {cut_run} in epoch 2 after batch 1" in reporter.lines


def test_temporary_files_of_a_killed_process_are_removed(cut_run: Path) -> None:
    left = cut_run / "weights" / ".last.pt.1234"
    left.write_bytes(b"half a state")
    train(TrainConfig(resume=str(cut_run)), Silent())
    assert sorted(path.name for path in left.parent.iterdir()) == ["best.pt", "last.pt", "last_previous.pt"]


def test_a_changed_label_is_reported_before_anything_starts(cut_run: Path) -> None:
    label = cut_run.parent.parent / "data/labels/train/3.txt"
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    before = (cut_run / "weights/last.pt").read_bytes()
    with pytest.raises(UserError, match="the dataset has changed: train images or labels"):
        train(TrainConfig(resume=str(cut_run)), Silent())
    assert (cut_run / "weights/last.pt").read_bytes() == before


def test_a_changed_option_is_an_error_unless_it_may_change(cut_run: Path) -> None:
    with pytest.raises(UserError, match="options differ from the run's: --batch 4 → 8, --optimizer SGD → Adam"):
        train(TrainConfig(resume=str(cut_run), batch=8, optimizer="Adam"), Silent())
    with pytest.raises(UserError, match="--batch 4 → 16"):  # a default given explicitly
        train(TrainConfig(resume=str(cut_run), batch=16), Silent(), given={"resume", "batch"})
    result = train(TrainConfig(resume=str(cut_run), epochs=4, workers=1), Silent())
    assert result.epochs == 4


@pytest.mark.slow
def test_the_original_options_can_be_repeated(small: Path, tmp_path: Path) -> None:
    """They are stored as they were resolved: --img rounded to the stride, --batch -1 measured."""
    train(config(small, tmp_path, epochs=1, img=(50, 50)), Silent())
    path = tmp_path / "exp/weights/last.pt"
    content = torch.load(path, weights_only=True)
    assert content["training"]["options"]["img"] == [64, 64]
    assert content["training"]["requested"] == {"batch": 4, "img": [50, 50], "tile": 0, "optimizer": ""}
    content["training"]["requested"]["batch"] = -1  # as measured on a GPU
    torch.save(content, path)
    again = TrainConfig(resume=str(tmp_path / "exp"), img=(50, 50), batch=-1, epochs=2)
    given = {"resume", "img", "batch", "epochs"}
    with pytest.raises(UserError, match=r"--img \(64, 64\) → \(96, 96\)"):
        train(dataclasses.replace(again, img=(96, 96)), Silent(), given=given)
    assert train(again, Silent(), given=given).epochs == 2
    train(dataclasses.replace(again, epochs=3), Silent(), given=given)  # and once more
    assert read_mapping(tmp_path / "exp/opt.yaml")["batch"] == 4


def test_resume_expands_the_home_folder_in_project(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    train(config(small, Path("~/runs"), epochs=1), Silent())
    assert (tmp_path / "runs/exp/weights/last.pt").is_file()
    assert train(TrainConfig(resume="newest", project="~/runs", epochs=2), Silent()).epochs == 2


def test_a_finished_run_is_an_error_and_can_be_extended(small: Path, tmp_path: Path) -> None:
    train(config(small, tmp_path, epochs=1), Silent())
    with pytest.raises(UserError, match="has finished its 1 epochs; extend it: yolo train --resume"):
        train(TrainConfig(resume=str(tmp_path / "exp")), Silent())
    assert train(TrainConfig(resume=str(tmp_path / "exp"), epochs=2), Silent()).epochs == 2
    assert len((tmp_path / "exp/results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("resume", "message"), [("newest", "no run to continue"), ("runs/none", "contains no weights")]
)
def test_no_run_to_continue(tmp_path: Path, resume: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(TrainConfig(resume=resume, project=str(tmp_path)), Silent())


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_after_the_batch_and_prints_how_to_resume(
    small: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    words = ["--data", str(small), "--cfg", str(small.parent / "tiny.yaml"), "--project", str(tmp_path)]
    words += ["--img", "32", "--batch", "2", "--epochs", "500", "--workers", "1", "--noplots", "--noval"]
    command = [sys.executable, "-m", "yolo_cli", "train", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "exp/weights/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert f"Continue with: yolo train --resume {tmp_path / 'exp'}" in out
    assert not err.replace("\r", "\n").strip().endswith("interrupted")  # it printed "stopped"
    assert "Traceback" not in err
    position = state(tmp_path / "exp")["training"]["progress"]
    result = train(TrainConfig(resume=str(tmp_path / "exp"), epochs=500), Silent()) if position["epoch"] > 490 else None
    assert result is None
    assert position["epoch"] >= 1


def infinite(parts: LossOutput) -> LossOutput:
    return LossOutput(*(part * torch.inf for part in (parts.total, parts.box, parts.obj, parts.cls)))


class Poison:
    """Makes the loss of one step infinite."""

    def __init__(self, at: int) -> None:
        self.at, self.count, self.original = at, 0, TrainStep.run

    def __call__(self, step: TrainStep, *args: Any) -> None:
        self.count += 1
        loss = step.loss
        if self.count == self.at:
            step.loss = lambda *of: infinite(loss(*of))
        self.original(step, *args)
        step.loss = loss


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_loss_that_is_not_finite(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    poison = Poison(8)
    monkeypatch.setattr(TrainStep, "run", lambda *args: poison(*args))  # noqa: PLW0108 - a function, so that it becomes a method
    reporter = Recording()
    options = config(small, tmp_path, nan_policy=policy)
    if policy == "stop":
        with pytest.raises(UserError, match="not finite in epoch 2, batch 2; its images are listed in"):
            train(options, reporter)
    else:
        train(options, reporter)
        assert any("skipped" in line for line in reporter.lines)
        for tensor in load_weights(tmp_path / "exp/weights/last.pt").state.values():
            assert torch.isfinite(tensor.double()).all()
    listed = (tmp_path / "exp/not_finite_epoch2_batch2.txt").read_text().split()
    assert len(listed) == 4
    assert all(Path(name).is_file() for name in listed)
    assert (tmp_path / "exp/not_finite_epoch2_batch2.jpg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, "has finished its 2 epochs; "),
        pytest.param({"epochs": 40, "patience": 1}, r"stopped early after \d+ epochs", marks=pytest.mark.slow),
    ],
)
def test_a_run_interrupted_after_its_last_epoch_is_only_evaluated(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr("yolo_cli.commands.train.load_best", lost)
        with pytest.raises(CutError):
            train(config(small, tmp_path, **changes), Silent())
    run = tmp_path / "exp"
    before = (run / "results.csv").read_bytes()
    done = len(before.splitlines()) - 1
    assert not (run / "results.json").exists()
    assert train(TrainConfig(resume=str(run)), Silent()).epochs == done
    assert (run / "results.csv").read_bytes() == before
    assert (run / "results.json").exists()
    with pytest.raises(UserError, match=message):
        train(TrainConfig(resume=str(run)), Silent())
    more = TrainConfig(resume=str(run), epochs=done + 1)
    if "patience" in changes:
        more = dataclasses.replace(more, patience=done + 9)
    assert train(more, Silent(), given={"resume", "epochs", "patience"}).epochs == done + 1


@pytest.mark.parametrize("evaluation", [1, 2])  # the evaluation of the last epoch, and the final one
def test_a_signal_after_the_last_batch_leaves_a_run_that_can_be_resumed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: int
) -> None:
    original, calls = Trainer.validate, 0

    def validate(self: Trainer, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == evaluation:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *args)

    reporter = Recording()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", validate)
        with pytest.raises(StoppedError):
            train(config(small, tmp_path, epochs=1), reporter)
    assert reporter.lines[-1].endswith(f"state is saved. Continue with: yolo train --resume {tmp_path / 'exp'}")
    assert train(TrainConfig(resume=str(tmp_path / "exp")), Silent()).epochs == 1


def test_another_number_of_batches_keeps_the_position(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --rect and another number of processes. Otherwise updates would wait until the old steps are reached."""
    cut(config(small, tmp_path), monkeypatch, after=15)
    path = tmp_path / "exp/weights/last.pt"
    content = torch.load(path, weights_only=True)
    training = content["training"]
    assert (training["batches"], training["progress"]["epoch"], training["progress"]["batch"]) == (6, 2, 3)
    training["batches"], training["progress"]["batch"], training["progress"]["last_update"] = 60, 30, 149
    torch.save(content, path)
    reporter, updates = Recording(), []
    original = TrainStep.update
    monkeypatch.setattr(
        TrainStep, "update", lambda self: (updates.append(self.state.progress.epoch), original(self))[1]
    )
    train(TrainConfig(resume=str(tmp_path / "exp")), reporter)
    assert "epochs had 60 batches and now have 6, of other images" in reporter.lines
    assert any(line.endswith("in epoch 3 after batch 3") for line in reporter.lines)
    assert updates


def test_skipping_every_batch_is_an_error(small: Path, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("lr0: 1.0e+9\nwarmup_epochs: 0\nnominal_batch: 4\n")
    with pytest.raises(
        UserError, match=r"the loss of 10 batches in a row is not finite: the weights have diverged; lower lr0"
    ):
        train(config(small, tmp_path, nan_policy="skip", hyp=str(hyp), epochs=30), Silent())
