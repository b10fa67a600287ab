"""The processes that train one model together, and the collective operations among them.

torch's elastic launcher starts them and describes each by environment variables. Without those there is one process.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from yolo_cli.distributed.elastic import PeerError
from yolo_cli.distributed.store import connect_store
from yolo_cli.errors import UserError
from yolo_cli.torch_errors import is_connection_error, is_timeout

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # for a process that is alive but takes no part; a dead one is noticed at once


@dataclass(frozen=True, slots=True)
class World:
    """The process group of a training and the rank of this process. The default is a single process.

    With one process, every operation returns its input at once. With several, each has to be called by all of them,
    and raises PeerError if another one has failed.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    control: dist.ProcessGroup | None = None  # gloo, for values in CPU memory

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that prints and writes files."""
        return self.rank == 0

    def share_of_sum(self, counts: Sequence[Tensor | int], device: torch.device) -> Tensor:
        """Each count divided by its sum over the ranks: 0 if the sum is 0, and 1 with a single process."""
        if self.size == 1:
            return torch.ones(len(counts), device=device)
        # new_full, because a tensor made of Python numbers is a copy that waits for a GPU
        one = torch.ones((), dtype=torch.float64, device=device)
        mine = torch.stack([c.to(one) if isinstance(c, Tensor) else one.new_full((), c) for c in counts])
        return (mine / self.all_reduce_sum(mine).clamp(min=1)).float()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, on the device of `values`."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        with _peer_errors():
            dist.all_reduce(total)
        return total

    def all_reduce_max(self, number: int) -> int:
        """The maximum over the ranks. Also a barrier."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        with _peer_errors():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.control)
        return int(value)

    def broadcast_object(self, value: T) -> T:
        """The value of the main process."""
        if self.size == 1:
            return value
        box = [value if self.is_main else None]
        with _peer_errors():
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]  # type: ignore[return-value]

    def gather_objects(self, value: T) -> list[T]:
        """The values of all ranks in their order; empty in all processes but the main one."""
        if self.size == 1:
            return [value]
        box: list[T | None] | None = [None] * self.size if self.is_main else None
        with _peer_errors():
            dist.gather_object(value, box, dst=0, group=self.control)
        return list(box) if box else []  # type: ignore[arg-type]

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the ranks, in place."""
        if self.size == 1:
            return
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(self.all_reduce_sum(tensor) / self.size)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the main process, in place."""
        if self.size == 1:
            return
        with torch.no_grad(), _peer_errors():
            for tensor in tensors:
                contiguous = tensor.contiguous()
                dist.broadcast(contiguous, src=0)
                tensor.copy_(contiguous)

    @contextmanager
    def local_rank_zero_first(self) -> Iterator[None]:
        """Run the block in one process per machine before the others, which can then read what it has cached."""
        if self.local_rank:
            self.all_reduce_max(0)
        yield
        if not self.local_rank:
            self.all_reduce_max(0)


SINGLE_PROCESS = World()


def local_rank_and_size() -> tuple[int, int]:
    """The rank of this process among those that the launcher started on this machine, and their number."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the processes that the launcher started, for the duration of the block.

    `device` is that of this process. A GPU becomes torch's current device, so that nothing is allocated on another.
    Raises PeerError if another process fails in the meantime.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    rank, (local_rank, local_size) = int(os.environ["RANK"]), local_rank_and_size()
    with _peer_errors():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=connect_store(rank), rank=rank, world_size=size, timeout=TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT)
        assert isinstance(control, dist.ProcessGroup)  # every process is in it
        try:
            yield World(rank, size, local_rank, local_size, control)
        except BaseException:
            if device.type != "cuda":  # NCCL would wait for processes that have ended
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()


def per_rank_batch(batch: int, world: World) -> int:
    """Images per batch of one process. Raises UserError if `batch` is not a multiple of the number of processes."""
    if batch % world.size:
        raise UserError(
            f"cannot be divided equally among {world.size} processes",
            where=f"--batch {batch}",
            fix=f"give a multiple of {world.size}: it is the batch size summed over all processes",
        )
    return batch // world.size


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Raise PeerError in place of torch's errors about a lost or silent process."""
    try:
        yield
    except RuntimeError as error:
        if not any(is_connection_error(each) for each in (error, error.__context__)):
            raise
        what = f"another process has not answered for {TIMEOUT}" if is_timeout(error) else "another process is lost"
        raise PeerError(what) from error
