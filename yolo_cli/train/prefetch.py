"""Batches on the device: on a GPU, the next one is copied while the network computes."""

from collections.abc import Iterable, Iterator

import torch

from yolo_cli.batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device.

    A CUDA device copies each in a stream of its own, one batch ahead. Batches in page-locked memory let the host
    continue meanwhile. Elsewhere the batches stay as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = batch.to(device)
            done = copying.record_event()
        if waiting is not None:
            yield _received(*waiting, computing)
        waiting = copied, done
    if waiting is not None:
        yield _received(*waiting, computing)


def _received(batch: Batch, done: torch.cuda.Event, stream: torch.cuda.Stream) -> Batch:
    """The batch, for use in `stream` from when it is copied."""
    stream.wait_event(done)
    for tensor in (batch.images, batch.targets):
        tensor.record_stream(stream)  # so that its memory is not used for another copy too early
    return batch
