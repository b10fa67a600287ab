"""`yolo train`: from options to a run folder with a trained model. Setup, wiring, loop, outputs."""

import time
from collections.abc import Set as AbstractSet
from dataclasses import fields, replace
from pathlib import Path

import torch

from yolo_cli.anchors.autoanchor import check_anchors
from yolo_cli.config import AUTO_BATCH, Hyperparameters, TrainConfig
from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.device import default_workers, rank_device, seed_everything
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.distributed.world import World, per_rank_batch, place, process_group
from yolo_cli.errors import UserError
from yolo_cli.loss.losses import LossSettings, build_loss, check_loss
from yolo_cli.model.build import DetectionModel, count_parameters, gflops
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run import run_plots
from yolo_cli.run.folder import RunLock, create_run_dir, holding
from yolo_cli.run.loggers import CsvLogger, MetricLogger, TensorBoardLogger
from yolo_cli.train.autobatch import SHARE, measured_batch
from yolo_cli.train.finalize import finalize, write_settings
from yolo_cli.train.loop import Trainer, TrainResult
from yolo_cli.train.nan_guard import explain_worker_failures
from yolo_cli.train.optim import freeze_layers
from yolo_cli.train.resume import ResumePoint, check_data, find_point, has_state, run_of
from yolo_cli.train.setup import (
    TrainData,
    build_model,
    check_model_files,
    check_trainable,
    describe_hyperparameters,
    open_train_data,
    read_hyperparameters,
)
from yolo_cli.train.signals import StoppedError, catch_signals, exit_on_signal

LINGER = 60.0  # seconds that a job waits for processes of an earlier start, whose launcher was killed, to save and end


def run(config: TrainConfig, reporter: Reporter, *, given: AbstractSet[str] | None = None) -> TrainResult:
    """Train as the options say, or continue a run. Raises UserError for anything that the user can mend.

    `given` names the options that were asked for (by default those that differ from their defaults), which a run that
    is continued must agree with. Raises StoppedError where a signal ended the training, with everything saved.

    In a process that torch's elastic launcher has started, it trains together with the others of its job, and goes on
    with the job's run where that has begun. Raises PeerError where another process has failed, which says why.
    """
    job = ElasticJob.of_environment()
    with job.record_failure():
        check_model_files(config)
        device = rank_device(config.device, *place())
    with process_group(cuda=device.type == "cuda") as world, job.record_failure(), holding() as hold:
        return _train(config, given, device, job, world, reporter if world.is_main else Silent(), hold)


def _train(
    config: TrainConfig,
    given: AbstractSet[str] | None,
    device: torch.device,
    job: ElasticJob,
    world: World,
    reporter: Reporter,
    hold: RunLock,
) -> TrainResult:
    """What each process of a training does; the main one alone writes and speaks."""
    start = time.perf_counter()
    point = _resume_point(config, _changed(config) if given is None else given, job, world, reporter, hold)
    config = point.config if point else config
    hyp = point.hyp if point else read_hyperparameters(config.hyp, reporter, config.loss)
    if config.batch == AUTO_BATCH and device.type != "cuda":
        raise UserError("is measured on a GPU", where="--batch -1", fix="give a number on other devices")
    workers = default_workers(
        config.workers, max(config.batch // world.size, 1) if config.batch != AUTO_BATCH else 8, world.local_size
    )
    seed_everything(config.seed)
    with world.local_rank_zero_first():  # which leaves the others its cached labels
        data = open_train_data(config, workers, reporter)
    if point:
        check_data(point, data)
    model, config = _prepare(config, hyp, point, data, device, world, reporter)
    folder = _folder(config, point, job, world, hold)
    rows: list[list[str]] = point.state["progress"]["rows"] if point else []
    loggers: list[MetricLogger] = []
    if world.is_main:
        write_settings(folder, config, hyp, model, data)
        job.begin(folder)
        history = CsvLogger(folder / "results.csv", rows)
        loggers, rows = [history, TensorBoardLogger(folder, len(rows))], history.rows
    trainer = Trainer(
        config,
        hyp,
        model,
        data,
        img=config.img,
        workers=workers,
        device=device,
        folder=folder,
        loggers=loggers,
        reporter=reporter,
        world=world,
    )
    if point:
        trainer.resume(point)
    trainer.progress.rows = rows  # the same list, so that states hold what was logged
    with explain_worker_failures(folder):
        epochs = _run(trainer)
        result = _finish(trainer, epochs, start)
    if world.is_main:
        job.end(folder)
    return result


def _run(trainer: Trainer) -> int:
    folder, data = trainer.folder, trainer.data
    try:
        with catch_signals() as stop:
            draws = _draws(trainer.config, trainer.world)
            drawing = run_plots.TrainPictures(folder, data.names, data.train.index) if draws else None
            return trainer.run(drawing, stop)
    finally:
        for logger in trainer.loggers:
            logger.close()


def _finish(trainer: Trainer, epochs: int, start: float) -> TrainResult:
    try:
        with exit_on_signal():
            return finalize(trainer, epochs, start, draw=_draws(trainer.config, trainer.world))
    except StoppedError:
        trainer.checkpoints.say_stopped("while its best weights were judged")
        raise


def _prepare(
    config: TrainConfig,
    hyp: Hyperparameters,
    point: ResumePoint | None,
    data: TrainData,
    device: torch.device,
    world: World,
    reporter: Reporter,
) -> tuple[DetectionModel, TrainConfig]:
    """The model as its training begins, and the options with image size and batch as they will be."""
    model = point.weights.build_model() if point else build_model(config, data.names, reporter)
    img = checked_image_size(config.img, model.stride, reporter)
    config = replace(config, loss=config.loss or model.architecture.loss)
    check_loss(config.loss, model, LossSettings(hyp, img, config.label_smoothing))
    if not config.noautoanchor and not point:
        check_anchors(model, data.train.index, img, thr=hyp.anchor_t, seed=config.seed, reporter=reporter)
    if config.batch == AUTO_BATCH:
        config = replace(config, batch=_measured(config, hyp, model, img, device, world))
        reporter.info(f"--batch -1: {config.batch} images fill {SHARE:.0%} of the memory")
    batch = per_rank_batch(config.batch, world)
    check_trainable(config, model, img, len(data.train.index), world)
    frozen = freeze_layers(model, config.freeze)
    reporter.info(
        f"{count_parameters(model):,} parameters{f' ({len(frozen)} tensors frozen)' if frozen else ''}, "
        f"{gflops(model, *img):.3g} GFLOPs at {img[1]}×{img[0]}, strides {list(model.strides)}, "
        + (f"{device}" if world.size == 1 else f"{world.size} processes, {batch} images each, on {device.type}")
    )
    reporter.info(describe_hyperparameters(hyp))
    return model, replace(config, img=img, resume="")


def _resume_point(
    config: TrainConfig, given: AbstractSet[str], job: ElasticJob, world: World, reporter: Reporter, hold: RunLock
) -> ResumePoint | None:
    """Where to continue: the run that this job began before it was started again, or that of `--resume`.

    Its state is read once it is this job's own.
    """
    begun = run = None
    if world.is_main:
        begun = job.folder(config.project)
        run = begun or (run_of(config) if config.resume else None)
        if run:
            hold.acquire(run, patience=LINGER if job.key else 0.0)
    begun, run = world.broadcast_object((begun, run))
    if begun and has_state(begun):
        reporter.warn(f"started again (restart {job.restarts}): going on with {begun}")
        # A size that was rounded to strides is not as it was given; and the end of a run may have been cut off, too.
        again = replace(config, resume=str(begun))
        return find_point(again, given - {"img"}, reporter, of_job=True)
    return find_point(replace(config, resume=str(run)), given, reporter) if run and config.resume else None


def _measured(
    config: TrainConfig,
    hyp: Hyperparameters,
    model: DetectionModel,
    img: tuple[int, int],
    device: torch.device,
    world: World,
) -> int:
    """`--batch -1`: what fits the process with the least room, for all of them."""
    trial = model.to(device).to(memory_format=torch.channels_last)
    loss = build_loss(config.loss, trial, LossSettings(hyp, img, config.label_smoothing))
    return -world.all_reduce_max(-measured_batch(trial, loss, img, device)) * world.size


def _folder(config: TrainConfig, point: ResumePoint | None, job: ElasticJob, world: World, hold: RunLock) -> Path:
    """The run's folder: that of the run that is continued, or a new one, claimed by the main process."""
    if point:
        return point.folder
    folder = Path()
    if world.is_main:
        begun = job.folder(config.project)  # by a start that ended before it could save anything
        folder = begun or create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
        if not begun:
            hold.acquire(folder)
    return world.broadcast_object(folder)


def _draws(config: TrainConfig, world: World) -> bool:
    return world.is_main and not config.noplots


def _changed(config: TrainConfig) -> set[str]:
    """The options that are not as they are by default."""
    defaults = TrainConfig()
    return {f.name for f in fields(config) if getattr(config, f.name) != getattr(defaults, f.name)}
