"""Run by the launcher in every process: the gradients of an epoch and an evaluation, written by the main process.

Arguments: data.yaml, output file, batch size, "sync" or "own" batch norms, architecture file beside data.yaml.
"""

import sys
from pathlib import Path

import torch
from sync_batchnorm import synchronize_norms

from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.device import seed_everything
from yolo_cli.distributed.world import process_group
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent
from yolo_cli.train import loop, step
from yolo_cli.train.setup import TrainSetup
from yolo_cli.train.signals import StopRequest
from yolo_cli.train.train_data import open_train_data
from yolo_cli.weights.networks import find_network


def main() -> None:
    """An epoch without an update, all in double precision; then the metrics of the untrained model."""
    data_file, out, batch, norms, cfg = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    step.prepare_images = lambda images, device: images.to(device).double() / 255
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    config = TrainConfig(data=data_file, batch=int(batch), img=(64, 64), workers=0, noplots=True, optimizer="SGD")
    hyp, device = Hyperparameters(nominal_batch=10_000, warmup_epochs=0), torch.device("cpu")
    with process_group(device) as world:
        data = open_train_data(config, 0, Silent())
        seed_everything(3)
        network = find_network(str(Path(data_file).parent / cfg))
        model = DetectionModel(network.with_classes(len(data.names)), data.names)
        if norms == "sync":
            synchronize_norms(model)
        trainer = loop.Trainer(TrainSetup(config, hyp, data, model, device, 0), Path(out).parent, world=world)
        losses = trainer.train_epoch(0, StopRequest())
        trainer.average_gradients()
        evaluation = trainer.validate(trainer.ema.model)
        if world.is_main:
            gradients = {name: p.grad for name, p in model.named_parameters()}
            buffers = {name: b for name, b in model.named_buffers() if "running" in name}
            scores = [evaluation.metrics.map50, evaluation.metrics.map50_95, evaluation.metrics.images]
            torch.save({"losses": losses, "gradients": gradients, "buffers": buffers, "scores": scores}, out)


if __name__ == "__main__":
    main()
