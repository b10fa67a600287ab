"""Training on a GPU."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_resume import Poison, assert_same, cut, state
from tests.train.test_train_run import options
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.device import mixed_precision, select_device
from yolo_cli.distributed.world import SINGLE_PROCESS
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent
from yolo_cli.train.device_values import DeviceValues
from yolo_cli.train.loop import Trainer
from yolo_cli.train.prefetch import on_device
from yolo_cli.train.setup import set_up
from yolo_cli.train.step import TrainStep


def on_gpu(data: Path, folder: Path, **changes: Any) -> TrainConfig:
    return options(data, folder, **({"device": "0", "optimizer": "SGD", "seed": 3} | changes))


def losses(run: Path) -> list[float]:
    """Box, objectness and class losses of all epochs."""
    rows = list(csv.reader((run / "results.csv").open()))[1:]
    return [float(cell) for row in rows for cell in row[1:4]]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("loss", ["anchor", "ota"])
def test_a_step_waits_for_nothing(small: Path, tmp_path: Path, optimizer: str, loss: str) -> None:
    device = select_device("0")
    setup = set_up(on_gpu(small, tmp_path, optimizer=optimizer, loss=loss), None, device, SINGLE_PROCESS, Silent())
    trainer = Trainer(setup, tmp_path)
    trainer.model.train()
    batches = list(on_device(trainer.train_loader, device))
    trainer.step.values = DeviceValues(device, interval=2 * len(batches))
    for number, batch in enumerate(batches):
        trainer.step.run(0, number, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, batch in enumerate(batches):
            trainer.step.run(1, number, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    read, _ = trainer.step.values.read()
    assert all(one.finite for one in read)


def test_mixed_precision_learns_as_float32_does(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = train(on_gpu(small, tmp_path, epochs=5), Silent())
    for module in ("yolo_cli.device", "yolo_cli.train.loop"):
        monkeypatch.setattr(f"{module}.mixed_precision", lambda device: None)
    full = train(on_gpu(small, tmp_path, epochs=5), Silent())
    assert losses(mixed.folder) == pytest.approx(losses(full.folder), rel=0.05)


def test_float16_where_there_is_no_bfloat16(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mixed_precision(select_device("0")) in (torch.bfloat16, torch.float16)
    for module in ("yolo_cli.device", "yolo_cli.train.loop"):
        monkeypatch.setattr(f"{module}.mixed_precision", lambda device: torch.float16)
    result = train(on_gpu(small, tmp_path, epochs=3), Silent())
    assert all(0 <= value < 100 for value in losses(result.folder))


def test_losses_are_those_of_the_cpu(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("yolo_cli.device", "yolo_cli.train.loop"):
        monkeypatch.setattr(f"{module}.mixed_precision", lambda device: None)
    gpu = train(on_gpu(small, tmp_path), Silent())
    cpu = train(on_gpu(small, tmp_path, device="cpu"), Silent())
    assert losses(gpu.folder) == pytest.approx(losses(cpu.folder), rel=1e-2)


def test_resume_continues_exactly(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of cuDNN that add in another order each time are excluded."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config = on_gpu(small, tmp_path, epochs=3, batch=4, save_every=1)
    try:
        train(replace(config, name="whole"), Silent())
        cut(replace(config, name="cut"), monkeypatch, 8)
        train(TrainConfig(resume=str(tmp_path / "cut")), Silent())
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))


def test_the_batch_size_is_measured(small: Path, tmp_path: Path) -> None:
    result = train(on_gpu(small, tmp_path, batch=-1), Silent())
    assert "batch: -1" not in (result.folder / "opt.yaml").read_text()


def test_too_little_memory_is_one_line_with_a_batch_size_that_fits(small: Path, tmp_path: Path) -> None:
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - 2**30, 0), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(UserError, match=r"cuda:0: out of memory; --batch \d+ would fit"):
            train(on_gpu(small, tmp_path, cfg="s", img=(640, 640), batch=24), Silent())
    finally:
        del held
        torch.cuda.empty_cache()


def test_a_loss_that_is_not_finite_names_the_batch(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    poison = Poison(2)
    monkeypatch.setattr(TrainStep, "run", lambda *args: poison(*args))  # noqa: PLW0108
    with pytest.raises(UserError, match="the loss is not finite in epoch 1, batch 2; its images are listed in"):
        train(on_gpu(small, tmp_path), Silent())


def test_compiled_losses_are_those_without(small: Path, tmp_path: Path) -> None:
    eager, compiled = (train(on_gpu(small, tmp_path, compile=on, epochs=2), Silent()) for on in (False, True))
    assert losses(compiled.folder) == pytest.approx(losses(eager.folder), rel=0.05)


def test_one_process_with_nccl_and_synchronized_batch_norm(small: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    script = Path(__file__).with_name("one_process.py")
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "gradients equal" in done.stdout
