"""Images per second of a training step on the CPU: forward, loss, backward, clipping, optimizer, moving average.

All sides get the same batches, made once from the dataset by our loader (mosaic, floats in 0 … 1), so that the loader
is not measured. Each side uses its own yolov5n from scratch, its own loss and moving average, and SGD with Nesterov
momentum in three groups, with an update after every batch. The result is the fastest of eight steps, because on a
shared machine the slower ones measure how threads were scheduled. The median step is listed, too. ultralytics'
"yolov5n" is another network, with an anchor-free head and 2.65 million parameters instead of 1.87; it is listed for
orientation.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Measure,
    add_data_options,
    alternate,
    answer,
    ask,
    copy_dataset,
    environment,
    options,
    peer_pythons,
    report,
    workplace,
)

CASES = {"320, batch 16": (320, 16), "640, batch 8": (640, 8)}
BATCHES, WARM, TIMED = 4, 2, 8
MEASURES = (
    *(Measure(name, "images/s", True, "≥ 1 × each peer") for name in CASES),
    *(Measure(f"{name}, median step", "images/s", True) for name in CASES),
)
Step = Callable[[Any, Any], None]  # images as floats, targets


def ours(task: dict[str, Any], img: int, batch: int) -> Step:
    """The step of our Trainer, with its schedule. The model is that of the task's weight file, else a new yolov5n."""
    from yolo_cli.batch import Batch
    from yolo_cli.config import Hyperparameters, TrainConfig
    from yolo_cli.device import select_device
    from yolo_cli.progress import Silent
    from yolo_cli.train.loop import Trainer
    from yolo_cli.train.setup import TrainSetup, build_model
    from yolo_cli.train.train_data import open_train_data
    from yolo_cli.weights.load import load_weights

    weights = load_weights(Path(task["weights"])) if "weights" in task else None
    cfg = "" if weights else "n"
    config = TrainConfig(
        cfg=cfg, data=task["data"], img=(img, img), batch=batch, device="cpu", epochs=3, optimizer="SGD"
    )
    data = open_train_data(config, 0, Silent())
    hyp = Hyperparameters(nominal_batch=batch)  # an update after every batch
    model = build_model(config, weights, data.names, Silent())
    trainer = Trainer(TrainSetup(config, hyp, data, model, select_device("cpu"), 0), Path())
    trainer.model.train()
    steps = iter(range(1000))

    def step(images: Any, targets: Any) -> None:
        # It takes bytes, as the loader returns them; the time includes their conversion to floats.
        trainer.step.run(0, next(steps), Batch((images * 255).byte(), targets, tuple(range(len(images))), ()))
        trainer.step.values.read()

    return step


def yolov5_step(task: dict[str, Any], img: int, batch: int) -> Step:
    import torch
    import yolov5
    from yolov5.models.yolo import Model
    from yolov5.utils.loss import ComputeLoss
    from yolov5.utils.torch_utils import ModelEMA, smart_optimizer

    model = Model(str(Path(yolov5.__file__).parent / "models" / "yolov5n.yaml"), ch=3, nc=task["nc"])
    model.hyp = task["hyp"] | {"obj": task["hyp"]["obj"] * (img / 640) ** 2}
    optimizer = smart_optimizer(model, "SGD", 0.01, 0.937, 5e-4)
    loss_of, ema = ComputeLoss(model), ModelEMA(model)
    model.train()

    def step(images: Any, targets: Any) -> None:
        loss, _ = loss_of(model(images), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)

    return step


def ultralytics(task: dict[str, Any], img: int, batch: int) -> Step:
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.torch_utils import ModelEMA

    model = DetectionModel("yolov5n.yaml", ch=3, nc=task["nc"], verbose=False)
    model.args = get_cfg()
    ema = ModelEMA(model)
    model.train()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim > 1]
    others = [[p for n, p in named if p.ndim <= 1 and n.endswith("bias") == bias] for bias in (True, False)]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 5e-4}, *({"params": group} for group in others)]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.937, nesterov=True)

    def step(images: Any, targets: Any) -> None:
        batch = {"img": images, "batch_idx": targets[:, 0], "cls": targets[:, 1:2], "bboxes": targets[:, 2:]}
        loss, _ = model.loss(batch)
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)

    return step


SIDES = {OURS: ours, "yolov5": yolov5_step, "ultralytics": ultralytics}


def work(side: str, task: dict[str, Any]) -> None:
    import numpy as np
    import torch

    figures = {}
    for name, file in task["batches"].items():
        img, batch = CASES[name]
        stored = np.load(file)
        pairs = [
            (torch.from_numpy(stored[f"images{i}"]).float() / 255, torch.from_numpy(stored[f"targets{i}"]))
            for i in range(BATCHES)
        ]
        torch.manual_seed(0)
        step = SIDES[side](task, img, batch)
        times = []
        for images, targets in itertools.islice(itertools.cycle(pairs), WARM + TIMED):
            start = time.perf_counter()
            step(images, targets)
            times.append(time.perf_counter() - start)
        figures[name] = batch / min(times[WARM:])
        figures[f"{name}, median step"] = batch / statistics.median(times[WARM:])
    answer(figures)


def make_batches(data: Path, folder: Path, cases: Sequence[str] = tuple(CASES)) -> dict[str, str]:
    """Batches of each case as .npz files, by the case's name."""
    import numpy as np

    from yolo_cli.config import Hyperparameters
    from yolo_cli.dataset.loader import train_loader
    from yolo_cli.dataset.splits import load_split, prepare_dataset
    from yolo_cli.progress import Silent

    split = load_split(
        prepare_dataset(str(data), Silent()), "train", single_cls=False, strict=False, workers=0, reporter=Silent()
    )
    files = {}
    for number, name in enumerate(cases):
        img, batch = CASES[name]
        loader = train_loader(split.index, img=(img, img), batch=batch, hyp=Hyperparameters(), seed=0, workers=0)
        arrays: dict[str, Any] = {}
        for i, made in zip(range(BATCHES), loader, strict=False):
            arrays |= {f"images{i}": made.images.numpy(), f"targets{i}": made.targets.numpy()}
        files[name] = str(folder / f"batches{number}.npz")
        np.savez(files[name], **arrays)
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, runs=2)
    add_data_options(parser)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args.worker, json.loads(args.task))
        return
    peers = peer_pythons(args.peers, ("yolov5", "ultralytics"))
    from dataclasses import asdict

    from yolo_cli.config import Hyperparameters
    from yolo_cli.dataset.splits import prepare_dataset
    from yolo_cli.progress import Silent

    with workplace() as folder:
        data = copy_dataset(args.data, folder / "data")
        task = {
            "data": str(data),
            "batches": make_batches(data, folder),
            "nc": prepare_dataset(str(data), Silent()).nc,
            "hyp": asdict(Hyperparameters()) | {"label_smoothing": 0.0},
        }
        sides = {
            name: lambda name=name, python=python: ask(
                python, __file__, name, task, environment(folder, peers.get(name), pinned=True), folder
            )
            for name, python in {OURS: Path(sys.executable), **peers}.items()
        }
        rounds = alternate(sides, args.runs)
    settings = {"model": "yolov5n", "cases": CASES, "timed_steps": TIMED, "device": "cpu", "runs": args.runs}
    report("train_step", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
