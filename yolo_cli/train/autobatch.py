"""How many images fit into memory: found beforehand (`--batch -1`), and said where too many were asked for."""

import copy
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from yolo_cli.errors import UserError
from yolo_cli.loss.losses import Loss
from yolo_cli.model.build import DetectionModel

SHARE = 0.8  # of a GPU's memory that a training may plan with: canvases with more objects take more
_TRIED = (2, 4, 8, 16)
# What torch's allocator and its library of convolutions say; the latter says it of other failures, too.
_ON_THE_CPU = ("can't allocate memory", "could not create a primitive")


def measured_batch(model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device) -> int:
    """The images of a batch that fill SHARE of the GPU, by the memory that small batches take.

    Raises UserError where there is not room for one image.
    """
    peaks: list[tuple[int, float]] = []
    for images in _TRIED:
        torch.cuda.reset_peak_memory_stats(device)
        if not fits(model, loss, img, device, images):
            break
        peaks.append((images, float(torch.cuda.max_memory_allocated(device))))
    # Later come the moving average and up to two moments of the optimizer, each as large as the weights.
    later = 3 * sum(p.numel() * p.element_size() for p in model.parameters())
    model.zero_grad(set_to_none=True)
    batch = batch_within(peaks, SHARE * torch.cuda.mem_get_info(device)[1] - later)
    torch.cuda.empty_cache()
    if batch < 1:
        raise UserError("not one image fits into the GPU's memory", where="--batch -1", fix="give a smaller --img")
    return batch


def batch_within(peaks: Sequence[tuple[int, float]], room: float) -> int:
    """The largest batch in `room` bytes, from (images, peak bytes) of some batches: a straight line through them."""
    if len(peaks) < 2:
        return max((images for images, peak in peaks if peak <= room), default=0)
    slope, start = np.polyfit([images for images, _ in peaks], [peak for _, peak in peaks], 1)
    return max(int((room - start) / slope), 0) if slope > 0 else peaks[-1][0]


def fits(model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device, images: int) -> bool:
    """Whether a forward and backward pass over so many images finds memory; gradients are added to."""
    mode, buffers = model.training, [b.clone() for b in model.buffers()]
    try:
        pixels = torch.zeros(images, 3, *img, device=device).to(memory_format=torch.channels_last)
        row = torch.tensor([[0.0, 0, 0.5, 0.5, 0.3, 0.3]], device=device)
        targets = row.repeat(images, 1)
        targets[:, 0] = torch.arange(images, device=device)
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            raw = model.train()(pixels)
        loss(raw, targets).total.backward()
    except RuntimeError as error:
        if not is_lack_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        model.train(mode)
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(old)
    return True


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether torch says that a device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _ON_THE_CPU)


@contextmanager
def out_of_memory_advice(
    model: DetectionModel, loss: Loss, img: tuple[int, int], device: torch.device, batch: int
) -> Iterator[None]:
    """A UserError that says which batch fits, where the block runs out of memory.

    `batch` is one process's part; `model` and `loss` are tried alone, whatever other processes do.
    """
    try:
        yield
        return
    except RuntimeError as error:
        if not is_lack_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # with them go the tensors of the step
        said = str(error).strip().splitlines()[0]
    model = copy.deepcopy(model).requires_grad_(True)
    while (batch := batch // 2) and not fits(model, loss, img, device, batch):
        pass
    fix = f"--batch {batch} would fit each process" if batch else f"give a smaller --img or model ({said})"
    raise UserError("out of memory", where=str(device), fix=f"{fix}; other programs may hold some of it, too")
