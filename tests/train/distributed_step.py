"""Run by the launcher in every process: one training step's gradients, and a validation, written by the main one.

Arguments: data.yaml, output file, batch, "sync" or "own" norms.
"""

import sys
from pathlib import Path

import torch

from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.device import seed_everything
from yolo_cli.distributed.world import process_group
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent
from yolo_cli.train import loop
from yolo_cli.train.setup import open_train_data
from yolo_cli.train.signals import StopRequest
from yolo_cli.weights.networks import find_network


def main() -> None:
    """An epoch without an update, all in double precision, then the metrics of the untrained model."""
    data_file, out, batch, norms = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    loop.prepare_images = lambda images, device: images.to(device).double() / 255
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    config = TrainConfig(
        data=data_file, batch=int(batch), img=(64, 64), workers=0, noplots=True, sync_bn=norms == "sync"
    )
    with process_group(cuda=False) as world:
        data = open_train_data(config, 0, Silent())
        seed_everything(3)
        model = DetectionModel(find_network("n").with_classes(len(data.names)), data.names)
        trainer = loop.Trainer(
            config,
            Hyperparameters(nominal_batch=10_000, warmup_epochs=0),
            model,
            data,
            img=config.img,
            workers=0,
            device=torch.device("cpu"),
            folder=Path(out).parent,
            loggers=(),
            reporter=Silent(),
            world=world,
        )
        losses = trainer.train_epoch(0, None, StopRequest())
        evaluation = trainer.validate(trainer.ema.model)
        if world.is_main:
            gradients = {name: p.grad for name, p in model.named_parameters()}
            buffers = {name: b for name, b in model.named_buffers() if "running" in name}
            scores = [evaluation.metrics.map50, evaluation.metrics.map50_95, evaluation.metrics.images]
            torch.save({"losses": losses, "gradients": gradients, "buffers": buffers, "scores": scores}, out)


if __name__ == "__main__":
    main()
