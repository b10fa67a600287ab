"""The training cases of gpu.py, with the Trainer that `yolo train` uses, on images that are drawn."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def trainer(
    folder: Path, device: Any, cfg: str, batch: int, img: int, *, amp: bool, compiled: bool = False, workers: int = 0
) -> Any:
    """A Trainer on a dataset of drawn images, which are made in `folder` where they are missing."""
    from yolo_cli.config import TrainConfig
    from yolo_cli.distributed.world import SINGLE_PROCESS
    from yolo_cli.progress import Silent
    from yolo_cli.train.loop import Trainer
    from yolo_cli.train.setup import set_up

    config = TrainConfig(
        cfg=cfg,
        data=str(draw_dataset(folder, img)),
        img=(img, img),
        batch=batch,
        device=str(device),
        optimizer="SGD",
        hyp="scratch-low",
        workers=workers,
        noautoanchor=True,
        compile=compiled,
    )
    made = set_up(config, None, device, SINGLE_PROCESS, Silent())
    with precision(amp=amp):
        training = Trainer(made, folder)
    training.model.train()
    return training


@contextmanager
def precision(*, amp: bool) -> Iterator[None]:
    """Without `amp`, networks compute in float32 in this block."""
    import yolo_cli.device
    import yolo_cli.train.loop

    modules: list[Any] = [yolo_cli.device, yolo_cli.train.loop]
    own = yolo_cli.device.mixed_precision
    for module in modules:
        module.mixed_precision = own if amp else lambda device: None
    try:
        yield
    finally:
        for module in modules:
            module.mixed_precision = own


def draw_dataset(folder: Path, img: int) -> Path:
    """JPEG files of random noise with a few boxes each; returns data.yaml."""
    import cv2
    import numpy as np

    data = folder / f"noise{img}"
    if (data / "data.yaml").exists():
        return data / "data.yaml"
    images = 24 * (64 if img > 64 else 4)  # for 24 batches
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 16)):
        (data / "images" / split).mkdir(parents=True)
        (data / "labels" / split).mkdir(parents=True)
        for i in range(count):
            small = random.integers(0, 255, (img // 16, img // 16, 3), np.uint8)
            cv2.imwrite(str(data / f"images/{split}/{i}.jpg"), cv2.resize(small, (img, img)))
            rows = [
                f"{random.integers(80)} {x:.4f} {y:.4f} {w:.4f} {h:.4f}"
                for x, y, w, h in random.uniform((0.3, 0.3, 0.05, 0.05), (0.7, 0.7, 0.5, 0.5), (12, 4))
            ]
            (data / f"labels/{split}/{i}.txt").write_text("\n".join(rows))
    names = "\n".join(f"  {i}: class{i}" for i in range(80))
    (data / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    return data / "data.yaml"


class Steps:
    """Steps of a Trainer on a few batches that are on the device already, so that the loader is not measured."""

    def __init__(self, training: Any, batches: int = 2) -> None:
        from yolo_cli.train.prefetch import on_device

        self.training, self.numbers = training, itertools.count()
        self.batches = list(itertools.islice(on_device(training.train_loader, training.device), batches))

    def __call__(self) -> None:
        """One step. Values are read as often as in a training."""
        number = next(self.numbers)
        self.training.step.run(0, number, self.batches[number % len(self.batches)])
        if self.training.step.values.full:
            self.training.step.values.read()


def busy_share(step: Steps, device: Any, steps: int) -> float:
    """The share of the time in which the device computes, in percent; on a CPU that of operations of torch."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as profiled:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    events = profiled.key_averages()
    microseconds = sum(e.self_device_time_total if cuda else e.self_cpu_time_total for e in events)
    return 100 * microseconds / 1e6 / seconds


def waiting_share(training: Any, batches: int) -> tuple[float, float]:
    """Images per second of a training with its loader, and the share of the time spent waiting for it, in percent."""
    from yolo_cli.train.prefetch import on_device

    waited, images, started = 0.0, 0, 0.0
    source = iter(on_device(training.train_loader, training.device))
    for number in range(batches + 4):
        if number == 4:  # the first ones start the workers and choose algorithms
            _synchronize(training.device)
            started, waited, images = time.perf_counter(), 0.0, 0
        before = time.perf_counter()
        batch = next(source, None)
        if batch is None:
            break
        waited += time.perf_counter() - before
        training.step.run(0, number, batch)
        if training.step.values.full:
            training.step.values.read()
        images += len(batch.indices)
    _synchronize(training.device)
    seconds = time.perf_counter() - started
    del source
    return images / seconds, 100 * waited / seconds


def evaluate(training: Any) -> tuple[int, float]:
    """The number of images of an evaluation, as after an epoch, and its seconds."""
    start = time.perf_counter()
    training.validate(training.ema.model)
    return len(training.data.val.index), time.perf_counter() - start


def _synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
