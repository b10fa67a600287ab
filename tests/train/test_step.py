"""A step waits for no value on the device, and what is not finite does not reach the weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.waits import Waits
from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.device import seed_everything
from yolo_cli.errors import UserError
from yolo_cli.loss.detection import LossOutput
from yolo_cli.progress import Silent
from yolo_cli.train.device_values import DeviceValues
from yolo_cli.train.loop import Trainer
from yolo_cli.train.setup import TrainSetup, build_model
from yolo_cli.train.signals import StopRequest
from yolo_cli.train.train_data import open_train_data

CPU, BATCHES = torch.device("cpu"), 6


def trainer(data: Path, folder: Path, **changes: Any) -> tuple[Trainer, list[Batch]]:
    """A training that has not begun, and the batches of its first epoch. Every second batch ends with an update."""
    changes["cfg"] = str(data.parent / changes.get("cfg", "tiny.yaml"))
    base = {"data": str(data), "img": (64, 64), "batch": 4, "device": "cpu"}
    config = TrainConfig(**(base | {"optimizer": "SGD"} | changes))
    opened = open_train_data(config, 0, Silent())
    seed_everything(0)
    model = build_model(config, None, opened.names, Silent())
    made = Trainer(TrainSetup(config, Hyperparameters(nominal_batch=8, warmup_epochs=0), opened, model, CPU, 0), folder)
    made.model.train()
    return made, list(made.train_loader)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "AdamW", "nan_policy": "skip", "multi_scale": True}, {"loss": "ota"}, {"cfg": "tiny-tal.yaml"}],
    ids=["anchor", "anchor, more options", "ota", "tal"],
)
def test_a_step_waits_for_no_value(small: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    made, batches = trainer(small, tmp_path, **changes)
    step = made.step
    step.loss.fixed = True  # type: ignore[attr-defined] - as on a GPU
    step.values = DeviceValues(CPU, interval=2 * BATCHES)
    for number, batch in enumerate(batches):
        step.run(0, number, batch)
    counted = Waits()
    step.network.forward = counted.wrap(step.network.forward, "forward", "loop")
    step.loss = counted.wrap(step.loss, "loss", "backward")
    step.update = counted.wrap(step.update, "update", "loop")  # type: ignore[method-assign]
    with counted.counting():
        for number, batch in enumerate(batches):
            step.run(1, number, batch)
    assert not counted.found
    with counted.counting():
        read, _ = step.values.read()
    assert counted.totals()["loop"] <= 2  # for all steps together
    assert [(one.epoch, one.number) for one in read] == [(i // BATCHES, i % BATCHES) for i in range(2 * BATCHES)]
    assert all(one.finite for one in read)


def test_the_counter_counts() -> None:
    x = torch.arange(4.0)
    with Waits().counting() as counted:
        bool(x.sum() > 1)
        x[x > 1]
        (x > 1).nonzero()
        x.tolist()
        x.new_tensor([1, 2])
        torch.where(x > 1, x, 0.0)[torch.arange(2)]
    names = [operation for _, operation in counted.found]
    assert names == ["_local_scalar_dense", "index with a mask", "nonzero", "tolist", "lift_fresh"]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("number", [1, 3])
def test_what_is_not_finite_does_not_reach_the_weights(
    small: Path, tmp_path: Path, optimizer: str, bad: str, number: int
) -> None:
    """Batches 1, 3 and 5 end with an update; that of the first update of a run has no momentum yet."""
    made, batches = trainer(small, tmp_path, optimizer=optimizer, nan_policy="skip")
    step, loss = made.step, made.step.loss
    step.values = DeviceValues(CPU, interval=BATCHES)

    def spoiled(*of: Any) -> LossOutput:
        parts = loss(*of)
        if bad == "loss":
            return LossOutput(*(part * torch.nan for part in (parts.total, parts.box, parts.obj, parts.cls)))
        parts.total.register_hook(lambda gradient: gradient * torch.inf)
        return parts

    def values() -> list[torch.Tensor]:
        return [p.detach().clone() for p in made.model.parameters()]

    before = values()
    for i, batch in enumerate(batches):
        step.loss = spoiled if i == number else loss
        step.run(0, i, batch)
        after = values()
        changed = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert changed is (i % 2 == 1 and i != number), i
        before = after
    read, _ = step.values.read()
    assert [one.number for one in read if not one.finite] == [number]
    assert [one.gradient for one in read if not one.finite] == [bad == "gradient"]
    state = [*made.model.state_dict().values(), *made.ema.model.state_dict().values()]
    assert all(torch.isfinite(tensor.double()).all() for tensor in state)
    for saved in step.state.optimizer.state_dict()["state"].values():
        assert all(torch.isfinite(torch.as_tensor(tensor)).all() for tensor in saved.values())


def test_values_that_are_read_late_name_the_same_batch(small: Path, tmp_path: Path) -> None:
    made, _ = trainer(small, tmp_path)
    made.step.values = DeviceValues(CPU, interval=4)
    loss, calls = made.step.loss, 0

    def spoiled(*of: Any) -> LossOutput:
        nonlocal calls
        calls += 1
        parts = loss(*of)
        return replace(parts, box=parts.box * torch.nan) if calls == 2 else parts

    made.step.loss = spoiled
    with pytest.raises(UserError, match="the loss is not finite in epoch 1, batch 2; its images are listed in"):
        made.train_epoch(0, StopRequest())
    assert calls == 4  # read after the fourth step
    made.train_loader.set_epoch(0)
    expected = [str(made.data.train.index.path(i)) for i in list(made.train_loader)[1].indices]
    assert (tmp_path / "not_finite_epoch1_batch2.txt").read_text().split() == expected


def test_a_batch_can_be_made_again(small: Path, tmp_path: Path) -> None:
    made, batches = trainer(small, tmp_path)
    again = made.train_loader.batch(3)
    assert torch.equal(again.images, batches[3].images)
    assert torch.equal(again.targets, batches[3].targets)
    assert again.indices == batches[3].indices
    assert again.counts == batches[3].counts
