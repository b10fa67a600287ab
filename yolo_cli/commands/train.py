"""`yolo train`: from options to a run folder with a trained model."""

import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields

from yolo_cli.config import AUTO_BATCH, TrainConfig
from yolo_cli.device import device_names, rank_device, select_device
from yolo_cli.distributed import launch
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.distributed.world import World, local_rank_and_size, per_rank_batch, process_group
from yolo_cli.errors import StoppedError, UserError
from yolo_cli.evaluation.brightness import Brightness
from yolo_cli.evaluation.evaluate import observe_all
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.lock import RunLock
from yolo_cli.run.loggers import CsvLogger, MetricLogger, TensorBoardLogger
from yolo_cli.run.run_plots import TrainImages, ValidationImages
from yolo_cli.train.finalize import TrainResult, load_best, report_results
from yolo_cli.train.loop import Trainer
from yolo_cli.train.nan_guard import explain_worker_failures
from yolo_cli.train.resume import find_resume_point, resume_hint
from yolo_cli.train.setup import check_model_files, open_run_folder, set_up
from yolo_cli.train.signals import exit_on_signal


def run(config: TrainConfig, reporter: Reporter, *, given: AbstractSet[str] | None = None) -> TrainResult:
    """Train a model, or continue a run.

    In a process that torch's elastic launcher started, it trains together with the other processes of the job, and
    continues the job's run after a restart.

    Args:
        config: the options.
        reporter: used by the main process only.
        given: names of the options that the user gave, which must agree with those of a continued run. By default
            those that differ from their defaults.

    Raises:
        UserError: for everything that the user can correct.
        StoppedError: if a signal ended the training. Its state is saved.
        PeerError: if another process failed, which reports the reason.
    """
    start = time.perf_counter()
    job = ElasticJob.from_environment()
    with job.record_failure():
        check_model_files(config)
        device = rank_device(config.device, *local_rank_and_size())
    with process_group(device) as world, job.record_failure(), RunLock() as lock:
        reporter = reporter if world.is_main else Silent()
        given = _changed(config) if given is None else given
        point = find_resume_point(config, given, job, lock, world, reporter)
        if (point.config if point else config).time and "epochs" in given:
            raise UserError("exclude each other", where="--time --epochs", fix="leave one out")
        setup = set_up(config, point, device, world, reporter)
        folder = open_run_folder(setup, job, lock, world)
        draws, names = world.is_main and not setup.config.noplots, setup.data.names
        loggers: list[MetricLogger] = []
        if world.is_main:
            rows = point.state["progress"]["rows"] if point else []
            loggers = [CsvLogger(folder / "results.csv", rows), TensorBoardLogger(folder, len(rows))]

        with explain_worker_failures(folder):
            trainer = Trainer(setup, folder, loggers, world, reporter, start)
            epochs = trainer.run(TrainImages(folder, names, setup.data.train.index) if draws else None)
            try:
                with exit_on_signal():
                    model, best_epoch = load_best(folder, trainer.ema.model, device, world)
                    brightness = Brightness(len(setup.data.val.index))
                    drawers = [ValidationImages(folder, names, setup.data.val.index)] if draws else []
                    evaluation = trainer.validate(model, observe_all([brightness, *drawers]))
                    brightness.gather(world)
                    result = TrainResult(folder, evaluation, epochs, best_epoch, time.perf_counter() - start)
                    if world.is_main:
                        evaluator = trainer.evaluator
                        predictions = evaluator.state() if evaluator.has_boxes else None
                        report_results(result, setup, predictions, brightness.values, reporter)
            except StoppedError:
                reporter.info(resume_hint("while evaluating the best weights", folder, setup.config.device))
                raise
        if world.is_main:
            job.mark_finished(folder)
    return result


def needs_launch(config: TrainConfig) -> bool:
    """Whether `--device` names several devices, and no launcher has started this process."""
    return "," in config.device and "RANK" not in os.environ


def run_per_device(config: TrainConfig, arguments: Sequence[str]) -> int:
    """Run `yolo` with `arguments` once per device; returns the exit status.

    Raises UserError if the options do not fit the devices, and StoppedError if a signal ended the training.
    """
    check_model_files(config)
    names = device_names(config.device)
    for name in names:
        select_device(name)
    if not config.resume and config.batch != AUTO_BATCH:
        per_rank_batch(config.batch, World(size=len(names)))
    return launch.launch(config, arguments)


def _changed(config: TrainConfig) -> set[str]:
    """The options that differ from their defaults."""
    defaults = TrainConfig()
    return {f.name for f in fields(config) if getattr(config, f.name) != getattr(defaults, f.name)}
