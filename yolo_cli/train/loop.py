"""The training loop, top to bottom."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolo_cli import checkpoint
from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.sampler import image_weights, multi_scale_size
from yolo_cli.errors import UserError
from yolo_cli.evaluate import Evaluation, Observer, Thresholds, evaluate, prepare_images
from yolo_cli.logs import MetricLogger
from yolo_cli.loss.detection import DetectionLoss, scaled_gains
from yolo_cli.metrics.detection import Evaluator, Metrics
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.optim import GROUPS, ModelEMA, Schedule, apply_settings, build_optimizer
from yolo_cli.progress import Reporter
from yolo_cli.provenance import memory_gigabytes
from yolo_cli.train.setup import TrainData

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
    ) -> None:
        self.config, self.hyp, self.data, self.img = config, hyp, data, img
        self.device, self.folder, self.loggers, self.reporter = device, folder, loggers, reporter
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.ema = ModelEMA(self.model, hyp.ema_decay, hyp.ema_ramp)
        self.optimizer = build_optimizer(model, config.optimizer, hyp, config.batch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        gains = scaled_gains(hyp, len(model.strides), model.nc, img)
        matching, auxiliary = config.loss, model.has_auxiliary
        self.loss = DetectionLoss.of(
            model.head, hyp, gains, config.label_smoothing, matching=matching, auxiliary=auxiliary
        )
        self.val_loss = DetectionLoss.of(self.ema.model.head, hyp, gains, matching=matching, auxiliary=auxiliary)
        self.evaluator = Evaluator(data.names)
        self.train_loader = train_loader(
            data.train.index,
            img=img,
            batch=config.batch,
            hyp=hyp,
            seed=config.seed,
            workers=workers,
            augment=True,
            rect=config.rect,
            stride=model.stride,
            cache=config.cache,
        )
        self.val_loader = val_loader(
            data.val.index, img=img, batch=2 * config.batch, stride=model.stride, workers=workers, cache=config.cache
        )
        self.batches = self.train_loader.batches
        self.schedule = Schedule(hyp, config.epochs, len(self.batches), config.batch, config.cos_lr)
        self.last_update = -1  # step of the last optimizer update
        self.best_fitness, self.best_epoch = -1.0, -1

    def run(self, picture: Picture | None) -> int:
        """Train; returns the number of epochs done. Checkpoints, logs and results.csv are written on the way."""
        metrics: Metrics | None = None
        for epoch in range(self.config.epochs):
            self._plan_epoch(epoch, metrics)
            losses = self.train_epoch(epoch, picture if epoch == 0 else None)
            last = epoch + 1 == self.config.epochs
            values = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), losses, strict=True))
            if last or not self.config.noval:
                evaluation = self.validate(self.ema.model)
                metrics = evaluation.metrics
                values |= _columns(evaluation)
            values |= {f"x/lr{i}": group["lr"] for i, group in enumerate(self.optimizer.param_groups)}
            for logger in self.loggers:
                logger.log(epoch, values)
            better = self._is_better(epoch, metrics)
            stop = epoch - self.best_epoch >= self.config.patience > 0 and metrics is not None
            self._keep(epoch, better=better, last=last or stop)
            if stop:
                self.reporter.say(f"no better since epoch {self.best_epoch + 1}: stopped early (--patience)")
                return epoch + 1
        return self.config.epochs

    def train_epoch(self, epoch: int, picture: Picture | None) -> list[float]:
        """One pass over the training split; mean box, objectness and class losses."""
        self.model.train()
        sums = torch.zeros(3, device=self.device)
        title = f"epoch {epoch + 1}/{self.config.epochs}"
        with self.reporter.bar(len(self.batches), title) as bar:
            for number, batch in enumerate(self.train_loader):
                if picture is not None:
                    picture(number, batch)
                sums += self.step(epoch, number, batch)
                mean = (sums / (number + 1)).tolist()
                bar.advance(self._bar_text(mean, batch))
        return (sums / len(self.batches)).tolist()

    def step(self, epoch: int, number: int, batch: Batch) -> Tensor:
        """One batch: forward, backward and, where enough gradients are summed, an update. Returns the loss parts."""
        step = epoch * len(self.batches) + number
        settings = self.schedule.at(step)
        apply_settings(self.optimizer, settings)
        images = prepare_images(batch.images, self.device)
        if self.config.multi_scale:
            canvas = (images.shape[2], images.shape[3])  # with --rect not the same for all batches
            size = multi_scale_size(self.config.seed, epoch, number, canvas, self.model.stride)
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        with torch.autocast(self.device.type, enabled=self.scaler.is_enabled()):
            raw = self.model(images)
        parts = self.loss(raw, batch.targets.to(self.device, non_blocking=True))
        values = parts.values()
        if not torch.isfinite(values).all():
            files = ", ".join(self.data.train.index.path(i).name for i in batch.indices[:4])
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}, batch {number + 1} (images {files} …)",
                fix="lower lr0 in the --hyp file"
                + ("; weights/last.pt holds the epoch before" if epoch else ", or check the weights it began with"),
            )
        self.scaler.scale(parts.total).backward()
        if step - self.last_update >= settings.accumulate:
            self.update()
            self.last_update = step
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
            self.val_loader,
            self.data.val.index,
            self.evaluator,
            thresholds=Thresholds(),
            device=self.device,
            reporter=self.reporter,
            batches=len(self.val_loader),
            loss=self.val_loss,
            observe=observe,
        )

    def _plan_epoch(self, epoch: int, metrics: Metrics | None) -> None:
        """Which batches this epoch has; with --image-weights, more of the images whose classes are found worst."""
        weights = None
        if self.config.image_weights:
            index, need = self.data.train.index, np.ones(self.model.nc)
            for row in metrics.per_class if metrics is not None else ():
                need[row.class_id] = (1 - row.map50_95) ** 2
            weights = image_weights(index, self.model.nc, need)
        self.train_loader.set_epoch(epoch, weights=weights)

    def _is_better(self, epoch: int, metrics: Metrics | None) -> bool:
        """Whether this epoch is the best so far, which is then remembered."""
        fitness = metrics.fitness if metrics is not None else -1.0
        better = fitness > self.best_fitness or self.best_epoch < 0
        if better:
            self.best_fitness, self.best_epoch = fitness, epoch
        return better

    def _keep(self, epoch: int, *, better: bool, last: bool) -> None:
        """Write last.pt, best.pt where this epoch is the best, and the periodic checkpoint."""
        if self.config.nosave and not last:
            return
        self._save("last.pt", epoch)
        if better or self.config.nosave:
            self._save("best.pt", epoch)
        if self.config.save_period > 0 and (epoch + 1) % self.config.save_period == 0:
            self._save(f"epoch{epoch + 1}.pt", epoch)

    def _save(self, name: str, epoch: int) -> None:
        checkpoint.save(
            self.folder / "weights" / name,
            self.ema.model,
            epoch=epoch,
            extra={"fitness": float(self.best_fitness), "img": list(self.img)},
        )

    def _bar_text(self, losses: list[float], batch: Batch) -> str:
        box, obj, cls = losses
        lr = self.optimizer.param_groups[GROUPS.index("weights")]["lr"]
        height, width = batch.images.shape[2:]
        memory = memory_gigabytes(self.device)
        return f"box {box:.4f} obj {obj:.4f} cls {cls:.4f} lr {lr:.2g} {memory:.1f}G {width}×{height}"


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
