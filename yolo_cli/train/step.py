"""One step of the training: forward, loss, backward and, if enough gradients are accumulated, an update.

On a GPU nothing in it waits for the device. What the host needs to know, it reads later; see `DeviceValues`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from yolo_cli.batch import Batch, prepare_images
from yolo_cli.dataset.sampler import multi_scale_size
from yolo_cli.device import autocast
from yolo_cli.distributed.world import World
from yolo_cli.loss.losses import LossSettings, build_loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.heads import RawMaps
from yolo_cli.train.compiling import compile_network
from yolo_cli.train.device_values import DeviceValues
from yolo_cli.train.nan_guard import NanGuard
from yolo_cli.train.optim import Schedule, apply_settings, step_if_finite
from yolo_cli.train.setup import TrainSetup
from yolo_cli.train.state import TrainState


class TrainStep:
    """What happens with a batch.

    Args:
        setup: of the training.
        state: what the step changes.
        schedule: of learning rates, momentum and accumulation.
        nan_guard: restores the statistics of batch norm after a loss that is not finite.
        world: the processes that train together.
    """

    def __init__(
        self, setup: TrainSetup, state: TrainState, schedule: Schedule, nan_guard: NanGuard, world: World
    ) -> None:
        config, model, self.device = setup.config, setup.model, setup.device
        self.config, self.state, self.schedule = config, state, schedule
        self.nan_guard, self.world, self.stride = nan_guard, world, model.stride
        self.network = _parallel(model, world, setup.device, sync_bn=config.sync_bn)
        self.compiled = compile_network(self.network, setup.device) if config.compile else None
        self.compiled_size: torch.Size | None = None
        loss = config.loss or model.architecture.loss
        settings = LossSettings(setup.hyp, config.img, config.label_smoothing, world=world)
        self.loss = build_loss(loss, model, settings)
        self.closing_loss = build_loss(loss, model, replace(settings, closing=True))
        self.values = DeviceValues(setup.device, world)

    def run(self, epoch: int, number: int, batch: Batch) -> None:
        """Train on a batch. Its losses are noted in `values`, which must not be full."""
        progress, step = self.state.progress, epoch * self.schedule.batches + number
        settings = self.schedule.at(step)
        apply_settings(self.state.optimizer, settings)
        update = step - progress.last_update >= settings.accumulate
        images = self._images(epoch, number, batch)
        statistics = self.nan_guard.save_statistics()
        with nullcontext() if update else self._without_exchange():
            with autocast(self.device):
                raw = self._network_for(images)(images)
            loss = self.closing_loss if epoch >= self.schedule.closing_epoch else self.loss
            parts = loss(raw, batch.targets.to(self.device, non_blocking=True), batch.counts)
            losses = parts.values()
            finite = torch.isfinite(losses).all()
            # So that every gradient is NaN in every process, and one check before the update finds it.
            total = parts.total * torch.ones_like(parts.total).masked_fill(~finite, torch.nan)
            self.state.scaler.scale(total).backward()
        self.nan_guard.restore_statistics(statistics, finite)
        self.values.add(epoch, number, losses)
        if update:
            self.update()
            progress.last_update = step

    def update(self) -> None:
        """One optimizer step with the accumulated gradients, and an update of the moving average.

        Gradients that are not finite are dropped, and the weights stay as they are.
        """
        state, limit = self.state, self.schedule.hyp.clip_grad_norm
        state.scaler.unscale_(state.optimizer)
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else torch.inf)
        if state.scaler.is_enabled():  # it expects gradients that are not finite, and lowers its scale
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            step_if_finite(state.optimizer, norm)
            self.values.add_gradient_flag((~norm.isfinite()).float())
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.update()

    def _images(self, epoch: int, number: int, batch: Batch) -> Tensor:
        """The network input, with --multi-scale in another size."""
        images = prepare_images(batch.images, self.device)
        if not self.config.multi_scale:
            return images
        canvas = (images.shape[2], images.shape[3])  # with --rect it differs among batches
        size = multi_scale_size(self.config.seed, epoch, number, canvas, self.stride)
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def _network_for(self, images: Tensor) -> Callable[[Tensor], RawMaps]:
        """With --compile, the compiled network for batches of the first one's size.

        The last batch of an epoch can be smaller. Compiling once more would take longer than that batch.
        """
        if self.compiled is None:
            return self.network
        self.compiled_size = self.compiled_size or images.shape
        return self.compiled if images.shape == self.compiled_size else self.network

    def _without_exchange(self) -> AbstractContextManager[Any]:
        """A context in which gradients are accumulated in this process only, until the batch with the update."""
        network = self.network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _parallel(model: DetectionModel, world: World, device: torch.device, *, sync_bn: bool) -> nn.Module:
    """The model, or with several processes a wrapper that averages its gradients over them."""
    if world.size == 1:
        return model
    if sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # parameters and buffers stay the same objects
    # Without --sync-bn, DistributedDataParallel copies the main process's running statistics before each step.
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
