"""Several processes that train one model: who is who, and what they tell each other.

torch's elastic launcher starts them and describes each by environment variables; a process without those is alone.
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

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # for a process that is alive and silent; one that ends is noticed at once


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a training, and which of them this is. `ALONE` answers every question for a single one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    control: dist.ProcessGroup | None = None  # gloo, for what lies in the memory of the processor

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share_of_sum(self, counts: Sequence[int], device: torch.device) -> Tensor:
        """For each count, this process's part of the sum over all; 0 where the sum is 0. Alone: 1."""
        if self.size == 1:
            return torch.ones(len(counts), device=device)
        mine = torch.tensor(counts, dtype=torch.float64, device=device)
        return (mine / self.all_reduce_sum(mine).clamp(min=1)).float()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, on the values' device. Raises PeerError where one has failed."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        with _speaking():
            dist.all_reduce(total)
        return total

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers; all wait for each other."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        with _speaking():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.control)
        return int(value)

    def broadcast_object(self, value: T) -> T:
        """The value of the main process, at all of them."""
        if self.size == 1:
            return value
        box = [value if self.is_main else None]
        with _speaking():
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]  # type: ignore[return-value]

    def gather_objects(self, value: T) -> list[T]:
        """All processes' values in the order of their ranks, at the main one; nothing at the others."""
        if self.size == 1:
            return [value]
        box: list[T | None] | None = [None] * self.size if self.is_main else None
        with _speaking():
            dist.gather_object(value, box, dst=0, group=self.control)
        return list(box) if box else []  # type: ignore[arg-type]

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the main process."""
        if self.size == 1:
            return
        with torch.no_grad(), _speaking():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)

    @contextmanager
    def local_rank_zero_first(self) -> Iterator[None]:
        """One process of each machine goes before the others, which then find what it has cached."""
        if self.local_rank:
            self.all_reduce_max(0)
        yield
        if not self.local_rank:
            self.all_reduce_max(0)


SINGLE_PROCESS = World()


def place() -> tuple[int, int]:
    """This process's number among those that the launcher has started on this machine, and how many they are."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(*, cuda: bool) -> Iterator[World]:
    """Join the processes that the launcher started with this one, if there are any, for as long as the block runs.

    Raises PeerError where one of them fails meanwhile.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    rank, (local_rank, local_size) = int(os.environ["RANK"]), place()
    if cuda:
        torch.cuda.set_device(local_rank)
    with _speaking():
        backend, store = "cpu:gloo,cuda:nccl" if cuda else "gloo", connect_store(rank)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT)
        assert isinstance(control, dist.ProcessGroup)  # every process is in it
        try:
            yield World(rank, size, local_rank, local_size, control)
        except BaseException:
            if not cuda:  # where NCCL would wait for processes that are gone
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()


def per_rank_batch(batch: int, world: World) -> int:
    """A process's images of a batch. Raises UserError where they cannot be the same number for each."""
    if batch % world.size:
        raise UserError(
            f"cannot be shared equally by {world.size} processes",
            where=f"--batch {batch}",
            fix=f"give a multiple of {world.size}: it is the batch of all of them together",
        )
    return batch // world.size


@contextmanager
def _speaking() -> Iterator[None]:
    """What torch says of a lost connection, as a PeerError."""
    try:
        yield
    except RuntimeError as error:
        if not any(_is_of_connection(each) for each in (error, error.__context__)):
            raise
        silent = "imed out" in str(error)
        what = f"another process has not answered for {TIMEOUT}" if silent else "another process is lost"
        raise PeerError(what) from error


def _is_of_connection(error: BaseException | None) -> bool:
    """Whether an error is about the other processes; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
