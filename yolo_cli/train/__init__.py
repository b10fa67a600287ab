"""`yolo train`: from options to a run folder with a trained model. Setup, wiring, loop, outputs."""

import time
from collections.abc import Set as AbstractSet
from dataclasses import fields, replace
from pathlib import Path

import torch

from yolo_cli import checkpoint, outputs, pictures, plots
from yolo_cli.anchors.suit import suit_anchors
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.dataset.opening import checked_image_size
from yolo_cli.device import default_workers, seed_everything, select_device
from yolo_cli.logs import CsvLogger, TensorBoardLogger
from yolo_cli.model.build import DetectionModel, count_parameters, gflops
from yolo_cli.optim import freeze_layers
from yolo_cli.progress import Reporter
from yolo_cli.run_folder import claim, write_options
from yolo_cli.train.loop import Trainer, TrainResult
from yolo_cli.train.resume import check_data, find_point
from yolo_cli.train.setup import (
    TrainData,
    build_model,
    check_options,
    check_trainable,
    describe_hyperparameters,
    open_train_data,
    read_hyperparameters,
)
from yolo_cli.train.stop import listening
from yolo_cli.yaml_file import write_mapping


def train(config: TrainConfig, reporter: Reporter, *, given: AbstractSet[str] | None = None) -> TrainResult:
    """Train as the options say, or continue a run. Raises UserError for anything that the user can mend.

    `given` names the options that were asked for (by default those that differ from their defaults), which a run that
    is continued must agree with. Raises StoppedError where a signal ended the training, with everything saved.
    """
    start = time.perf_counter()
    check_options(config)
    point = find_point(config, _changed(config) if given is None else given, reporter) if config.resume else None
    config = point.config if point else config
    hyp = point.hyp if point else read_hyperparameters(config.hyp, reporter, config.loss)
    device = select_device(config.device)
    workers = default_workers(config.workers, config.batch)
    seed_everything(config.seed)
    data = open_train_data(config, workers, reporter)
    if point:
        check_data(point, data)
    model = point.weights.model() if point else build_model(config, data.names, reporter)
    img = checked_image_size(config.img, model.stride, reporter)
    if not config.noautoanchor and not point:
        suit_anchors(model, data.train.index, img, thr=hyp.anchor_t, seed=config.seed, reporter=reporter)
    check_trainable(config, model, img, len(data.train.index))
    frozen = freeze_layers(model, config.freeze)
    reporter.say(
        f"{count_parameters(model):,} parameters{f' ({len(frozen)} tensors frozen)' if frozen else ''}, "
        f"{gflops(model, *img):.3g} GFLOPs at {img[1]}×{img[0]}, strides {list(model.strides)}, {device}"
    )
    reporter.say(describe_hyperparameters(hyp))
    folder = point.folder if point else claim(config.project, config.name, exist_ok=config.exist_ok)
    config = replace(config, img=img, resume="")
    _write_settings(folder, config, hyp, model, data)
    rows = point.state["progress"]["rows"] if point else ()
    history = CsvLogger(folder / "results.csv", rows)
    trainer = Trainer(
        config,
        hyp,
        model,
        data,
        img=img,
        workers=workers,
        device=device,
        folder=folder,
        loggers=(history, TensorBoardLogger(folder, len(rows))),
        reporter=reporter,
    )
    if point:
        trainer.resume(point)
    trainer.progress.rows = history.rows  # the same list, so that states hold what was logged
    try:
        with listening() as stop:
            drawing = None if config.noplots else pictures.TrainPictures(folder, data.names, data.train.index)
            epochs = trainer.run(drawing, stop)
    finally:
        for logger in trainer.loggers:
            logger.close()
    return _finish(trainer, epochs, start)


def _changed(config: TrainConfig) -> set[str]:
    """The options that are not as they are by default."""
    defaults = TrainConfig()
    return {f.name for f in fields(config) if getattr(config, f.name) != getattr(defaults, f.name)}


def _write_settings(
    folder: Path, config: TrainConfig, hyp: Hyperparameters, model: DetectionModel, data: TrainData
) -> None:
    """opt.yaml, hyp.yaml, model.yaml, dataset_report.json and labels.jpg."""
    (folder / "weights").mkdir(exist_ok=True)
    write_options(folder / "opt.yaml", config)
    write_options(folder / "hyp.yaml", hyp)
    anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    write_mapping(folder / "model.yaml", model.architecture.with_anchors(anchors).to_mapping())
    outputs.write_dataset_report(folder, (data.train, data.val))
    if not config.noplots:
        index = data.train.index
        plots.label_figure(index.classes, index.boxes, data.names, folder / "labels.jpg")


def _finish(trainer: Trainer, epochs: int, start: float) -> TrainResult:
    """Judge the best checkpoint, write pictures and results.json, print the table."""
    config, folder, data, reporter = trainer.config, trainer.folder, trainer.data, trainer.reporter
    best = checkpoint.load(folder / "weights" / "best.pt")
    model = best.model().to(trainer.device).eval()
    drawing = None if config.noplots else pictures.ValidationPictures(folder, data.names, data.val.index)
    evaluation = trainer.validate(model, drawing)
    if not config.noplots:
        pictures.write_curves(folder, evaluation.metrics, data.names)
        plots.results_figure(folder / "results.csv", folder / "results.png")
    seconds = time.perf_counter() - start
    outputs.write_results(
        folder,
        evaluation,
        device=trainer.device,
        splits=(data.train, data.val),
        extra={
            "epochs": epochs,
            "best_epoch": best.epoch,
            "seconds": seconds,
            "peak_gpu_gigabytes": torch.cuda.max_memory_allocated(trainer.device) / 1e9
            if trainer.device.type == "cuda"
            else None,
        },
    )
    outputs.print_table(evaluation, reporter.say, verbose=False)
    reporter.say(f"{epochs} epochs in {seconds / 60:.1f} minutes, best was epoch {best.epoch + 1}")
    reporter.say(f"results in {folder}")
    return TrainResult(folder, evaluation, epochs, best.epoch, seconds)
