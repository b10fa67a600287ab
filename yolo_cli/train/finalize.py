"""What a training writes besides its checkpoints and logs: settings before it, results after it."""

import copy
import time
from pathlib import Path

import torch

from yolo_cli import plots
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.run import reports, run_plots
from yolo_cli.run.folder import write_options
from yolo_cli.train.loop import Trainer, TrainResult
from yolo_cli.train.setup import TrainData
from yolo_cli.weights.load import load_weights


def write_settings(
    folder: Path, config: TrainConfig, hyp: Hyperparameters, model: DetectionModel, data: TrainData
) -> None:
    """opt.yaml, hyp.yaml, model.yaml, dataset_report.json and labels.jpg."""
    (folder / "weights").mkdir(exist_ok=True)
    write_options(folder / "opt.yaml", config)
    write_options(folder / "hyp.yaml", hyp)
    anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    write_mapping(folder / "model.yaml", model.architecture.with_anchors(anchors).to_mapping())
    reports.write_dataset_report(folder, (data.train, data.val))
    if not config.noplots:
        index = data.train.index
        plots.label_figure(index.classes, index.boxes, data.names, folder / "labels.jpg")


def finalize(trainer: Trainer, epochs: int, start: float, *, draw: bool) -> TrainResult:
    """Judge the best checkpoint; the main process writes pictures and results.json and prints the table."""
    folder, data, reporter, world = trainer.folder, trainer.data, trainer.reporter, trainer.world
    best = load_weights(folder / "weights" / "best.pt") if world.is_main else None
    model = best.build_model().to(trainer.device).eval() if best else copy.deepcopy(trainer.ema.model)
    world.broadcast_(model.state_dict().values())
    best_epoch = world.broadcast_object(best.epoch if best else -1)
    drawing = run_plots.ValidationPictures(folder, data.names, data.val.index) if draw else None
    evaluation = trainer.validate(model, drawing)
    seconds = time.perf_counter() - start
    result = TrainResult(folder, evaluation, epochs, best_epoch, seconds)
    if not world.is_main:
        return result
    if draw:
        run_plots.write_curves(folder, evaluation.metrics, data.names)
        plots.results_figure(folder / "results.csv", folder / "results.png")
    reports.write_results(
        folder,
        evaluation,
        device=trainer.device,
        splits=(data.train, data.val),
        extra={
            "epochs": epochs,
            "best_epoch": best_epoch,
            "seconds": seconds,
            "peak_gpu_gigabytes": torch.cuda.max_memory_allocated(trainer.device) / 1e9
            if trainer.device.type == "cuda"
            else None,
        },
    )
    reports.print_table(evaluation, reporter.info, verbose=False)
    reporter.info(f"{epochs} epochs in {seconds / 60:.1f} minutes, best was epoch {best_epoch + 1}")
    reporter.info(f"results in {folder}")
    return result
