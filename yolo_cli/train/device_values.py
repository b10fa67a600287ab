"""Values of the latest steps, which stay on the device until several are read at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.distributed.world import SINGLE_PROCESS, World

READ_EVERY = 20  # steps: reading waits until a GPU has finished all that was requested of it


@dataclass(frozen=True, slots=True)
class StepValues:
    """One step, as it is known after reading."""

    epoch: int
    number: int  # of the batch
    losses: tuple[float, float, float]  # box, objectness, class; of the batches of all ranks
    finite: bool  # on all ranks: the loss, and where it was used, the gradient
    own: bool  # whether a value of this rank's batch is not finite
    gradient: bool  # whether it is the gradient that is not finite


class DeviceValues:
    """Collects losses and flags on the device. A CPU's values are read after each step, which waits for nothing.

    Args:
        device: of the training.
        world: the ranks; they read after the same steps, in one collective operation.
        interval: steps per reading; by default READ_EVERY, on a CPU 1.
    """

    def __init__(self, device: torch.device, world: World = SINGLE_PROCESS, interval: int = 0) -> None:
        self._world = world
        interval = interval or (READ_EVERY if device.type == "cuda" else 1)
        # Per step: box, objectness, class loss; 1 if the gradient is not finite.
        self._rows: Float[Tensor, "steps 4"] = torch.zeros(interval, 4, device=device)
        self._steps: list[tuple[int, int]] = []

    @property
    def full(self) -> bool:
        """Whether they have to be read before the next step."""
        return len(self._steps) == len(self._rows)

    def add(self, epoch: int, number: int, losses: Float[Tensor, "3"]) -> None:
        """Note the losses of a step."""
        self._rows[len(self._steps), :3] = losses
        self._rows[len(self._steps), 3] = 0.0
        self._steps.append((epoch, number))

    def add_gradient_flag(self, flag: Float[Tensor, ""]) -> None:
        """Note for the latest step whether the gradient is not finite: 1, or else 0."""
        self._rows[len(self._steps) - 1, 3] = flag

    def read(self, *requests: int) -> tuple[list[StepValues], tuple[int, ...]]:
        """The steps since the last reading; and of each request, the largest number that a rank has made."""
        count = len(self._steps)
        own = self._rows[:count].flatten()
        if self._world.size == 1:
            numbers = own.tolist()
            return self._take(numbers, numbers), requests
        slots = own.new_zeros(self._world.size, len(requests))
        for i, request in enumerate(requests):
            slots[self._world.rank, i] = float(request)
        total = self._world.all_reduce_sum(torch.cat((own, slots.flatten())))
        numbers = torch.cat((own, total)).tolist()
        by_rank = numbers[2 * len(own) :]
        largest = tuple(int(max(by_rank[i :: len(requests)])) for i in range(len(requests)))
        return self._take(numbers[: len(own)], numbers[len(own) : 2 * len(own)]), largest

    def _take(self, own: Sequence[float], total: Sequence[float]) -> list[StepValues]:
        steps = []
        for i, (epoch, number) in enumerate(self._steps):
            mine, (box, obj, cls, flag) = own[4 * i : 4 * i + 4], total[4 * i : 4 * i + 4]
            gradient = _is_finite(box, obj, cls) and flag > 0
            steps.append(
                StepValues(
                    epoch,
                    number,
                    (box, obj, cls),
                    finite=_is_finite(box, obj, cls) and not gradient,
                    own=gradient or not _is_finite(*mine),
                    gradient=gradient,
                )
            )
        self._steps.clear()
        return steps


def _is_finite(*values: float) -> bool:
    return all(abs(value) < float("inf") for value in values)  # False for NaN
