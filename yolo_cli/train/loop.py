"""The training loop: epochs, validation and checkpoints. `TrainStep` is a single step."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_cli.batch import Batch
from yolo_cli.config import ValConfig
from yolo_cli.config.checks import parse_duration
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.sampler import image_weights
from yolo_cli.device import mixed_precision
from yolo_cli.distributed.world import SINGLE_PROCESS, World, per_rank_batch
from yolo_cli.errors import StoppedError
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, Evaluation, Observer, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.inference.evaluate_tiles import evaluate_tiled
from yolo_cli.inference.predictor import Predictor, Settings
from yolo_cli.loss.losses import LOSSES, LossSettings, build_loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.folder import write_options
from yolo_cli.run.loggers import MetricLogger, csv_row
from yolo_cli.run.provenance import memory_gigabytes
from yolo_cli.train.autobatch import out_of_memory_advice
from yolo_cli.train.checkpointing import CheckpointManager
from yolo_cli.train.nan_guard import NanGuard
from yolo_cli.train.optim import GROUPS, ModelEMA, Schedule, build_optimizer, set_train_mode
from yolo_cli.train.prefetch import on_device
from yolo_cli.train.resume import ResumePoint, plain_options, resume_hint
from yolo_cli.train.setup import TrainSetup, replan
from yolo_cli.train.signals import StopRequest, catch_signals
from yolo_cli.train.state import TrainState, rescale
from yolo_cli.train.step import TrainStep
from yolo_cli.train.time_budget import EpochTimer, TimeBudget

BatchDrawer = Callable[[int, Batch], None]  # called with the number and the batch, for each batch of the first epoch


class Trainer:
    """Everything that is needed to train a model, and the loop.

    Args:
        setup: what the training starts from. With a resume point, the saved state is restored.
        folder: of the run, with its settings written.
        loggers: called once per epoch. `run` closes them.
        world: the processes that train together.
        reporter: for progress.
        started: when the command began, by `time.perf_counter()`; the budget of --time counts from there.
    """

    def __init__(
        self,
        setup: TrainSetup,
        folder: Path,
        loggers: Sequence[MetricLogger] = (),
        world: World = SINGLE_PROCESS,
        reporter: Reporter | None = None,
        started: float | None = None,
    ) -> None:
        config, hyp, data, model = setup.config, setup.hyp, setup.data, setup.model
        self.setup, self.config, self.hyp, self.data = setup, config, hyp, data
        self.folder, self.loggers, self.world, self.device = folder, loggers, world, setup.device
        self.reporter = reporter or Silent()

        self.model = model.to(setup.device).to(memory_format=torch.channels_last)
        world.broadcast_(self.model.state_dict().values())
        self.ema = ModelEMA(self.model, hyp.ema_decay, hyp.ema_ramp)
        optimizer = build_optimizer(model, config.optimizer, hyp, config.batch)
        scaled = mixed_precision(setup.device) == torch.float16
        self.state = TrainState(
            self.model, self.ema, optimizer, torch.amp.GradScaler(setup.device.type, enabled=scaled)
        )

        self.val_loss = build_loss(
            config.loss or model.architecture.loss, self.ema.model, LossSettings(hyp, config.img)
        )
        self.evaluator = Evaluator(data.names)

        self.batch = per_rank_batch(config.batch, world)
        self.train_loader = train_loader(
            data.train.index,
            img=config.img,
            batch=self.batch,
            hyp=hyp,
            seed=config.seed,
            workers=setup.workers,
            rect=config.rect,
            tile=config.tile,
            stride=model.stride,
            cache=config.cache,
            shuffle_window=config.shuffle_window,
            rank=world.rank,
            world_size=world.size,
            pin_memory=setup.device.type == "cuda",
        )
        self.val_loader = val_loader(
            data.val.index,
            img=config.img,
            batch=2 * self.batch,
            stride=model.stride,
            workers=setup.workers,
            cache=config.cache,
            rank=world.rank,
            world_size=world.size,
            pin_memory=setup.device.type == "cuda",
        )
        self.batches_per_epoch = len(self.train_loader.batches)
        schedule = Schedule(hyp, config.epochs, self.batches_per_epoch, config.batch, config.cos_lr)
        self.nan_guard = NanGuard(setup, folder, world, self.reporter, self.train_loader)
        self.step = TrainStep(setup, self.state, schedule, self.nan_guard, world)

        self.loaded_ahead = -1  # the epoch that workers have begun to load before its first step
        self.finished = False
        if setup.point:
            self._resume(setup.point)
        self.checkpoints = CheckpointManager(
            folder, config, self.state, self._identity(), base_license=setup.base_license, enabled=world.is_main
        )
        self.budget: TimeBudget | None = None
        if config.time:
            started = time.perf_counter() if started is None else started
            self.budget = TimeBudget(parse_duration(config.time), started, self.state.progress.seconds)

    def run(self, draw: BatchDrawer | None = None) -> int:
        """Train; returns the number of finished epochs. Checkpoints and logs are written on the way.

        Raises StoppedError, with the state saved, after the batch during which a signal arrived, and UserError if the
        memory is not enough.
        """
        with ExitStack() as stack:
            for logger in self.loggers:
                stack.enter_context(closing(logger))
            stop = stack.enter_context(catch_signals())
            img = self.setup.largest_img
            stack.enter_context(out_of_memory_advice(self.ema.model, self.val_loss, img, self.device, self.batch))
            progress = self.state.progress
            while not self.finished and progress.epoch < self.config.epochs:
                epoch = progress.epoch
                timer = EpochTimer(self.batches_per_epoch - progress.batch, self.batches_per_epoch)
                losses = self.train_epoch(epoch, stop, draw if epoch == 0 else None)
                timer.trained()
                values = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), losses, strict=True))
                values |= self._schedule_values(epoch)
                self._load_ahead(epoch + 1)
                if not self.config.noval:
                    values |= self._evaluate_average()
                if self.budget:
                    self._plan_epochs(epoch, self.budget, timer)
                last = epoch + 1 == self.config.epochs
                if last and self.config.noval:
                    values |= self._evaluate_average()
                for logger in self.loggers:
                    logger.log(epoch, values)
                progress.rows.append(csv_row(epoch, values))
                better = self._update_best(epoch)
                early = epoch - progress.best_epoch >= self.config.patience > 0 and progress.fitness is not None
                progress.epoch, progress.batch, progress.losses, progress.skipped = epoch + 1, 0, [0.0] * 3, 0
                self.average_gradients()
                self.checkpoints.save_epoch(epoch, better=better, ended=last or early)
                if early:
                    best = progress.best_epoch + 1
                    self.reporter.info(f"stopped early: no improvement since epoch {best} (--patience)")
                self._stop_if_requested(self.world.all_reduce_max(stop.signal_number()), ended=last or early)
                if early:
                    break
        return self.state.progress.epoch

    def train_epoch(self, epoch: int, stop: StopRequest, draw: BatchDrawer | None = None) -> list[float]:
        """Train the remaining batches of an epoch; returns the mean box, objectness and class losses of all of it."""
        set_train_mode(self.model, self.config.freeze)
        progress, total = self.state.progress, self.batches_per_epoch
        if epoch != self.loaded_ahead:
            self._plan_epoch(epoch, progress.batch)
        unplanned = self.budget is not None and epoch == 0  # --time: this epoch is measured first
        title = f"epoch {epoch + 1}" if unplanned else f"epoch {epoch + 1}/{self.config.epochs}"
        batches = on_device(self.train_loader, self.device)
        with self.reporter.bar(total - progress.batch, title) as bar:
            for number, batch in enumerate(batches, start=progress.batch):
                if draw is not None:
                    draw(number, batch)
                self.step.run(epoch, number, batch)
                progress.batch = number + 1
                signal, save = 0, False
                if self._reads_values(epoch, number, stop):
                    signal, save = self._read_values(epoch * total + number, stop)
                bar.advance(self._bar_text(progress.mean_losses(number + 1), batch))
                self._stop_if_requested(signal)
                if save:
                    self.average_gradients()
                    self.checkpoints.save()
        return progress.mean_losses(total)

    def _reads_values(self, epoch: int, number: int, stop: StopRequest) -> bool:
        """Whether the values of the latest steps are read after this one; the same in all processes."""
        step, total = epoch * self.batches_per_epoch + number, self.batches_per_epoch
        due = self.step.values.full or number + 1 == total or self.checkpoints.is_due_by_count(step)
        return due or (self.world.size == 1 and (stop.signal_number() > 0 or self.checkpoints.is_due(step)))

    def _read_values(self, step: int, stop: StopRequest) -> tuple[int, bool]:
        """Add up the losses of the latest steps, and handle those that are not finite.

        Returns the number of a signal that a process has received, or 0, and whether a state is to be saved.
        """
        progress = self.state.progress
        steps, (signal, save) = self.step.values.read(stop.signal_number(), self.checkpoints.is_due(step))
        for values in steps:
            if values.finite:
                progress.add_losses(values.losses)
            else:
                self.nan_guard.handle(values)
                progress.skipped += 1
        return signal, save > 0

    def average_gradients(self) -> None:
        """Average the gradients that the processes have accumulated, before a state is saved."""
        self.world.average_([p.grad for p in self.model.parameters() if p.grad is not None])

    def validate(self, model: DetectionModel, observe: Observer | None = None) -> Evaluation:
        """Evaluate a model on the validation split."""
        dataset = EvalDataset(self.val_loader, self.data.val.index)
        if self.config.tile:
            default = ValConfig()
            settings = Settings(self.config.img, default.conf, default.iou, default.max_det, tile=self.config.tile)
            return evaluate_tiled(
                Predictor(TorchRuntime(model, self.device), self.device, settings),
                dataset,
                self.evaluator,
                tiles_per_batch=2 * self.batch,
                reporter=self.reporter,
                observe=observe,
                world=self.world,
            )
        return evaluate(
            fuse(model).to(memory_format=torch.channels_last),
            dataset,
            self.evaluator,
            EvalOptions(),
            device=self.device,
            reporter=self.reporter,
            loss=self.val_loss,
            observe=observe,
            world=self.world,
        )

    def _identity(self) -> dict[str, Any]:
        """What a state belongs to, as plain data."""
        setup = self.setup
        return {
            "options": plain_options(self.config),
            "requested": setup.requested,
            "hyp": asdict(self.hyp),
            "hyp_choice": {"automatic": setup.choice.automatic, "values": dict(setup.choice.values)},
            "data": self.data.fingerprint(),
            "batches": self.batches_per_epoch,
        }

    def _plan_epochs(self, epoch: int, budget: TimeBudget, timer: EpochTimer) -> None:
        """Set the number of epochs that --time has room for, and what --hyp auto chooses for that many."""
        budget.record(*timer.seconds())
        epochs = self.world.broadcast_object(budget.plan(epoch + 1, self.config.epochs if epoch else 0))
        self.state.progress.seconds = budget.elapsed()
        if epoch == 0 and epochs == 1:
            self.reporter.warn(f"--time {self.config.time}: only one epoch fits")
        if epochs == self.config.epochs:
            return
        each = f"{budget.epoch_seconds:.1f} s each, validation included"
        if epochs > 1:
            self.reporter.info(f"--time {self.config.time}: {epochs} epochs fit, {each}")
        self.config = replace(self.config, epochs=epochs)
        recipe = replan(self.setup, self.config)
        if recipe.optimizer != self.config.optimizer:
            self.config = replace(self.config, optimizer=recipe.optimizer)
            self.state.optimizer = build_optimizer(self.model, recipe.optimizer, recipe.hyp, self.config.batch)
        self.hyp = recipe.hyp
        self.ema.decay, self.ema.ramp = self.hyp.ema_decay, self.hyp.ema_ramp
        self.step.schedule = replace(self.step.schedule, hyp=self.hyp, epochs=epochs)
        self.checkpoints.identity = self._identity()
        if self.world.is_main:
            write_options(self.folder / "opt.yaml", self.config)
            write_options(self.folder / "hyp.yaml", self.hyp)

    def _schedule_values(self, epoch: int) -> dict[str, float]:
        """Columns of results.csv that show what the schedule did."""
        mosaic = self.hyp.mosaic if epoch < self.step.schedule.closing_epoch and not self.config.rect else 0.0
        values = {f"x/lr{i}": group["lr"] for i, group in enumerate(self.state.optimizer.param_groups)}
        return values | {"x/ema_decay": self.ema.current_decay, "x/mosaic": mosaic}

    def _resume(self, point: ResumePoint) -> None:
        self.state.load_state_dict(point.state, point.weights.state)
        progress = self.state.progress
        if (before := int(point.state.get("batches", self.batches_per_epoch))) != self.batches_per_epoch:
            rescale(progress, before, self.batches_per_epoch)
            self.reporter.warn(f"epochs had {before} batches and now have {self.batches_per_epoch}, of other images")
        self.finished = point.finished
        place = f"in epoch {progress.epoch + 1} after batch {progress.batch}"
        self.reporter.info(f"continuing {self.folder} {'after its last epoch' if self.finished else place}")

    def _stop_if_requested(self, signal: int, *, ended: bool = False) -> None:
        """Save the state and raise StoppedError, in all processes after the same batch.

        If the run has `ended`, the state is saved already, and only the best weights are still to be evaluated.
        """
        if not signal:
            return
        progress, place = self.state.progress, "after the last epoch"
        if not ended:
            self.average_gradients()
            self.checkpoints.save()
            place = f"in epoch {progress.epoch + 1} after batch {progress.batch} of {self.batches_per_epoch}"
        self.reporter.info(resume_hint(place, self.folder, self.config.device))
        raise StoppedError(signal)

    def _evaluate_average(self) -> dict[str, float]:
        """Evaluate the moving average; returns columns of results.csv."""
        # Without --sync-bn, each process has its own running statistics.
        self.world.broadcast_(self.ema.model.buffers())
        evaluation = self.validate(self.ema.model)
        self.state.progress.fitness = evaluation.metrics.fitness
        self.state.progress.per_class = [[row.class_id, row.map50_95] for row in evaluation.metrics.per_class]
        return _columns(evaluation)

    def _plan_epoch(self, epoch: int, start: int) -> None:
        """Choose the batches of this epoch; --image-weights draws images of classes with a low AP more often."""
        weights = None
        if self.config.image_weights:
            index, class_weights = self.data.train.index, np.ones(self.model.nc)
            for class_id, precision in self.state.progress.per_class:
                class_weights[int(class_id)] = (1 - precision) ** 2
            weights = image_weights(index, self.model.nc, class_weights)
        self.train_loader.set_epoch(epoch, start, weights=weights, mosaic=epoch < self.step.schedule.closing_epoch)

    def _load_ahead(self, epoch: int) -> None:
        """Let the workers load the first batches of the next epoch while this one is evaluated.

        Not where they depend on the evaluation: on the AP of each class, or on the time that it takes.
        """
        if epoch < self.config.epochs and not self.config.image_weights and self.budget is None:
            self._plan_epoch(epoch, 0)
            self.train_loader.load_ahead()
            self.loaded_ahead = epoch

    def _update_best(self, epoch: int) -> bool:
        """Whether this epoch is the best so far; if so, it is stored as such."""
        progress = self.state.progress
        fitness = progress.fitness if progress.fitness is not None else -1.0
        better = fitness > progress.best_fitness or progress.best_epoch < 0
        if better:
            progress.best_fitness, progress.best_epoch = fitness, epoch
        return better

    def _bar_text(self, losses: list[float], batch: Batch) -> str:
        box, obj, cls = losses
        second = LOSSES[self.config.loss or self.model.architecture.loss].second_part[0]
        lr = self.state.optimizer.param_groups[GROUPS.index("weights")]["lr"]
        height, width = batch.images.shape[2:]
        memory = memory_gigabytes(self.device)
        return f"box {box:.4f} {second} {obj:.4f} cls {cls:.4f} lr {lr:.2g} {memory:.1f}G {width}×{height}"


def _columns(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as columns of results.csv, without those that were not measured."""
    m = evaluation.metrics
    values = {
        "metrics/precision": m.precision,
        "metrics/recall": m.recall,
        "metrics/mAP_0.5": m.map50,
        "metrics/mAP_0.5:0.95": m.map50_95,
        **dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), evaluation.losses, strict=True)),
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}
