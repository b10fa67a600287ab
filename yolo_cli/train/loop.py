"""The training loop, top to bottom."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.sampler import image_weights, multi_scale_size
from yolo_cli.distributed.sync_batchnorm import synchronize_norms
from yolo_cli.distributed.world import SINGLE_PROCESS, World, per_rank_batch
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, Evaluation, Observer, evaluate, prepare_images
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.loss.losses import LossSettings, build_loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Reporter
from yolo_cli.run.loggers import MetricLogger
from yolo_cli.run.provenance import memory_gigabytes
from yolo_cli.train.autobatch import out_of_memory_advice
from yolo_cli.train.checkpointing import CheckpointManager
from yolo_cli.train.nan_guard import NanGuard
from yolo_cli.train.optim import GROUPS, ModelEMA, Schedule, apply_settings, build_optimizer
from yolo_cli.train.resume import ResumePoint
from yolo_cli.train.setup import TrainData
from yolo_cli.train.signals import StopRequest
from yolo_cli.train.state import Progress, rescale, restore

Picture = Callable[[int, Batch], None]  # shown the first batches of a run


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where a training ended."""

    folder: Path
    evaluation: Evaluation
    epochs: int
    best_epoch: int
    seconds: float


class Trainer:
    """Everything a training holds, and its loop."""

    def __init__(
        self,
        config: TrainConfig,
        hyp: Hyperparameters,
        model: DetectionModel,
        data: TrainData,
        *,
        img: tuple[int, int],
        workers: int,
        device: torch.device,
        folder: Path,
        loggers: Sequence[MetricLogger],
        reporter: Reporter,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.config, self.hyp, self.data, self.img, self.world = config, hyp, data, img, world
        self.device, self.folder, self.loggers, self.reporter = device, folder, loggers, reporter
        self.model = model.to(device).to(memory_format=torch.channels_last)
        world.broadcast_(self.model.state_dict().values())
        self.ema = ModelEMA(self.model, hyp.ema_decay, hyp.ema_ramp)
        self.network = _network(self.model, world, device, sync_bn=config.sync_bn)
        self.optimizer = build_optimizer(model, config.optimizer, hyp, config.batch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        loss = config.loss or model.architecture.loss
        settings = LossSettings(hyp, img, config.label_smoothing, world=world)
        self.loss = build_loss(loss, model, settings)
        self.closing_loss = build_loss(loss, model, replace(settings, closing=True))
        self.closing_epoch = config.epochs - hyp.close_mosaic  # from here on without mosaic and mixup
        self.val_loss = build_loss(loss, self.ema.model, LossSettings(hyp, img))
        self.evaluator = Evaluator(data.names)
        batch = per_rank_batch(config.batch, world)
        self.train_loader = train_loader(
            data.train.index,
            img=img,
            batch=batch,
            hyp=hyp,
            seed=config.seed,
            workers=workers,
            rect=config.rect,
            mosaic_epochs=self.closing_epoch,
            stride=model.stride,
            cache=config.cache,
            rank=world.rank,
            world_size=world.size,
        )
        self.val_loader = val_loader(
            data.val.index,
            img=img,
            batch=2 * batch,
            stride=model.stride,
            workers=workers,
            cache=config.cache,
            rank=world.rank,
            world_size=world.size,
        )
        self.batches_per_epoch = len(self.train_loader.batches)
        self.schedule = Schedule(hyp, config.epochs, self.batches_per_epoch, config.batch, config.cos_lr)
        self.progress, self.over = Progress(), False
        self.checkpoints = CheckpointManager(self)
        index, batches = data.train.index, self.batches_per_epoch
        self.faults = NanGuard(config, self.model, index, folder, reporter, world.rank, batches=batches)

    def resume(self, point: ResumePoint) -> None:
        """Put back the state of a run that is continued."""
        self.progress = restore(point.state, self.model, self.ema, point.weights.state, self.optimizer, self.scaler)
        if (before := int(point.state.get("batches", self.batches_per_epoch))) != self.batches_per_epoch:
            rescale(self.progress, before, self.batches_per_epoch)
            self.reporter.warn(f"epochs had {before} batches and have {self.batches_per_epoch} now, of other images")
        self.over = point.over
        place = f"in epoch {self.progress.epoch + 1} after batch {self.progress.batch}"
        self.reporter.info(f"continuing {self.folder} {'after its last epoch' if self.over else place}")

    def run(self, picture: Picture | None, stop: StopRequest) -> int:
        """Train; returns the number of epochs done. Checkpoints, logs and results.csv are written on the way.

        Raises StoppedError, with everything saved, after the batch in which `stop` was asked for, and UserError where
        memory is not enough.
        """
        batch = per_rank_batch(self.config.batch, self.world)
        with out_of_memory_advice(self.ema.model, self.val_loss, self.img, self.device, batch):
            return self._run(picture, stop)

    def _run(self, picture: Picture | None, stop: StopRequest) -> int:
        progress = self.progress
        if self.over:
            return progress.epoch
        for epoch in range(progress.epoch, self.config.epochs):
            losses = self.train_epoch(epoch, picture if epoch == 0 else None, stop)
            last = epoch + 1 == self.config.epochs
            values = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), losses, strict=True))
            if last or not self.config.noval:
                values |= self._judge()
            values |= {f"x/lr{i}": group["lr"] for i, group in enumerate(self.optimizer.param_groups)}
            for logger in self.loggers:
                logger.log(epoch, values)
            better = self._is_better(epoch)
            early = epoch - progress.best_epoch >= self.config.patience > 0 and progress.fitness is not None
            progress.epoch, progress.batch, progress.losses, progress.skipped = epoch + 1, 0, [0.0] * 3, 0
            self.checkpoints.epoch_done(epoch, better=better, ended=last or early)
            if early:
                self.reporter.info(f"no better since epoch {progress.best_epoch + 1}: stopped early (--patience)")
            if number := self.world.all_reduce_max(stop.asked()):
                self.checkpoints.stop(number, ended=last or early)
            if early:
                break
        return progress.epoch

    def train_epoch(self, epoch: int, picture: Picture | None, stop: StopRequest) -> list[float]:
        """The rest of a pass over the training split; mean box, objectness and class losses of all of it."""
        self.model.train()
        progress, total = self.progress, self.batches_per_epoch
        self._plan_epoch(epoch, progress.batch)
        sums = torch.tensor(progress.losses, device=self.device, dtype=torch.float32)
        title = f"epoch {epoch + 1}/{self.config.epochs}"
        with self.reporter.bar(total - progress.batch, title) as bar:
            for number, batch in enumerate(self.train_loader, start=progress.batch):
                if picture is not None:
                    picture(number, batch)
                sums += self.step(epoch, number, batch)
                progress.batch = number + 1
                mean = (sums / max(number + 1 - progress.skipped, 1)).tolist()
                bar.advance(self._bar_text(mean, batch))
                stopped_by = self.world.all_reduce_max(stop.asked())  # all processes stop after the same batch
                if stopped_by or self.checkpoints.is_due(epoch * total + number):
                    progress.losses = sums.tolist()
                    self.checkpoints.mid_epoch(stopped_by)
        return (sums / max(total - progress.skipped, 1)).tolist()

    def step(self, epoch: int, number: int, batch: Batch) -> Tensor:
        """One batch: forward, backward and, where enough gradients are summed, an update. Returns the loss parts."""
        step = epoch * self.batches_per_epoch + number
        settings = self.schedule.at(step)
        apply_settings(self.optimizer, settings)
        images = prepare_images(batch.images, self.device)
        if self.config.multi_scale:
            canvas = (images.shape[2], images.shape[3])  # with --rect not the same for all batches
            size = multi_scale_size(self.config.seed, epoch, number, canvas, self.model.stride)
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        before = self.faults.statistics()
        with torch.autocast(self.device.type, enabled=self.scaler.is_enabled()):
            raw = self.network(images)
        loss = self.closing_loss if epoch >= self.closing_epoch else self.loss
        parts = loss(raw, batch.targets.to(self.device, non_blocking=True))
        values = self.world.all_reduce_sum(parts.values())
        if not torch.isfinite(values).all():
            self.faults.not_finite(epoch, number, batch, before, mine=not torch.isfinite(parts.values()).all())
            self.progress.skipped += 1
            return torch.zeros_like(values)
        self.scaler.scale(parts.total).backward()
        if step - self.progress.last_update >= settings.accumulate:
            self.update()
            self.progress.last_update = step
        return values

    def update(self) -> None:
        """One optimizer step on the summed gradients, and the moving average after it."""
        if self.hyp.clip_grad_norm > 0:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.hyp.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()

    def validate(self, model: DetectionModel, observe: Observer | None = None) -> Evaluation:
        """Judge a model on the validation split."""
        fused = fuse(model).to(memory_format=torch.channels_last)
        return evaluate(
            fused,
            EvalDataset(self.val_loader, self.data.val.index),
            self.evaluator,
            EvalOptions(),
            device=self.device,
            reporter=self.reporter,
            loss=self.val_loss,
            observe=observe,
            world=self.world,
        )

    def _judge(self) -> dict[str, float]:
        """Validate the moving average, and remember what later epochs ask for."""
        self.world.broadcast_(self.ema.model.buffers())  # running statistics, where they are each process's own
        evaluation = self.validate(self.ema.model)
        self.progress.fitness = evaluation.metrics.fitness
        self.progress.per_class = [[row.class_id, row.map50_95] for row in evaluation.metrics.per_class]
        return _columns(evaluation)

    def _plan_epoch(self, epoch: int, start: int) -> None:
        """Which batches this epoch has; with --image-weights, more of the images whose classes are found worst."""
        weights = None
        if self.config.image_weights:
            index, need = self.data.train.index, np.ones(self.model.nc)
            for class_id, precision in self.progress.per_class:
                need[int(class_id)] = (1 - precision) ** 2
            weights = image_weights(index, self.model.nc, need)
        self.train_loader.set_epoch(epoch, start, weights=weights)

    def _is_better(self, epoch: int) -> bool:
        """Whether this epoch is the best so far, which is then remembered."""
        progress = self.progress
        fitness = progress.fitness if progress.fitness is not None else -1.0
        better = fitness > progress.best_fitness or progress.best_epoch < 0
        if better:
            progress.best_fitness, progress.best_epoch = fitness, epoch
        return better

    def _bar_text(self, losses: list[float], batch: Batch) -> str:
        box, obj, cls = losses
        lr = self.optimizer.param_groups[GROUPS.index("weights")]["lr"]
        height, width = batch.images.shape[2:]
        memory = memory_gigabytes(self.device)
        return f"box {box:.4f} obj {obj:.4f} cls {cls:.4f} lr {lr:.2g} {memory:.1f}G {width}×{height}"


def _network(model: DetectionModel, world: World, device: torch.device, *, sync_bn: bool) -> torch.nn.Module:
    """What a step calls: the model itself, or what averages its gradients over the processes."""
    if world.size == 1:
        return model
    if sync_bn:
        synchronize_norms(model, device)
    # Where norms are not synchronised, every step starts from the running statistics of the main process.
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def _columns(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as the columns of results.csv; what is unknown is left out."""
    m = evaluation.metrics
    values = {
        "metrics/precision": m.precision,
        "metrics/recall": m.recall,
        "metrics/mAP_0.5": m.map50,
        "metrics/mAP_0.5:0.95": m.map50_95,
        **dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), evaluation.losses, strict=True)),
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}
