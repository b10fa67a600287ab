"""The batch size that fits into memory: measured in advance (`--batch -1`), or suggested after running out of it."""

import copy
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from yolo_cli.device import autocast
from yolo_cli.errors import UserError
from yolo_cli.loss.losses import Loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.torch_errors import is_out_of_memory

MEMORY_FRACTION = 0.8  # of the GPU memory that is free; batches with more objects need more than the measured ones
_TRIAL_BATCHES = (2, 4, 8, 16)


def measure_batch(model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device) -> int:
    """The batch size that fills MEMORY_FRACTION of the free GPU memory, extrapolated from small batches.

    `img` is the largest (height, width) of the training. Raises UserError if not even one image fits.
    """
    peaks: list[tuple[int, float]] = []
    for images in _TRIAL_BATCHES:
        torch.cuda.reset_peak_memory_stats(device)
        if not fits(model, loss, img, device, images):
            break
        peaks.append((images, float(torch.cuda.max_memory_allocated(device))))
    # Allocated later: the moving average and up to two moments of the optimizer, each as large as the weights.
    later = 3 * sum(p.numel() * p.element_size() for p in model.parameters())
    model.zero_grad(set_to_none=True)
    batch = extrapolate_batch(peaks, MEMORY_FRACTION * available_memory(device) - later)
    torch.cuda.empty_cache()
    if batch < 1:
        raise UserError("not one image fits into the GPU's memory", where="--batch -1", fix="give a smaller --img")
    return batch


def available_memory(device: torch.device) -> int:
    """Bytes of GPU memory that this process can use: what it holds already, and what no other process holds."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def extrapolate_batch(peaks: Sequence[tuple[int, float]], memory: float) -> int:
    """The largest batch size for `memory` bytes, from a line through (images, peak bytes) of measured batches."""
    if len(peaks) < 2:
        return max((images for images, peak in peaks if peak <= memory), default=0)
    slope, start = np.polyfit([images for images, _ in peaks], [peak for _, peak in peaks], 1)
    return max(int((memory - start) / slope), 0) if slope > 0 else peaks[-1][0]


def fits(model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device, images: int) -> bool:
    """Whether the memory is enough for a forward and backward pass. Gradients accumulate; buffers are restored."""
    mode, buffers = model.training, [b.clone() for b in model.buffers()]
    try:
        pixels = torch.zeros(images, 3, *img, device=device).to(memory_format=torch.channels_last)
        row = torch.tensor([[0.0, 0, 0.5, 0.5, 0.3, 0.3]], device=device)
        targets = row.repeat(images, 1)
        targets[:, 0] = torch.arange(images, device=device)
        with autocast(device):
            raw = model.train()(pixels)
        loss(raw, targets).total.backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        model.train(mode)
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(old)
    return True


@contextmanager
def out_of_memory_advice(
    model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device, batch: int
) -> Iterator[None]:
    """Raise UserError with a batch size that fits, if the block runs out of memory.

    `batch` is the batch size of this process. `model` and `loss` are tried in this process only.
    """
    try:
        yield
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the tensors of the failed step
        reason = str(error).strip().splitlines()[0]
    model = copy.deepcopy(model).requires_grad_(True)
    while (batch := batch // 2) and not fits(model, loss, img, device, batch):
        pass
    fix = f"--batch {batch} would fit in each process" if batch else f"give a smaller --img or model ({reason})"
    raise UserError("out of memory", where=str(device), fix=f"{fix}; other programs may use some of it")
