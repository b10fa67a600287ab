"""The plan of a layer, made before it is built: arguments, output channels and change of resolution."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from torch import nn

from yolo_cli.errors import UserError

MAX_CHANNELS = 2**16
MAX_CLASSES = 100_000
MAX_REPEATS = 200
MAX_KERNEL_NUMBERS = 2**28  # parameters of one convolution: thirty times the largest published one


@dataclass(frozen=True, slots=True)
class Scaling:
    """Compound scaling of an architecture: depth scales repeats, width scales channels."""

    depth: float = 1.0
    width: float = 1.0

    def channels(self, channels: Any) -> int:
        """Scaled channels, rounded up to a multiple of 8 as in the published models."""
        scaled = math.ceil(integer(channels, "channels", 1, MAX_CHANNELS) * self.width / 8) * 8
        return integer(scaled, "channels", 1, MAX_CHANNELS)

    def repeats(self, repeats: int) -> int:
        """Scaled repeats, at least 1; a single repeat is not scaled."""
        return max(round(repeats * self.depth), 1) if repeats > 1 else repeats


@dataclass(frozen=True, slots=True)
class Plan:
    """One layer to build: `repeats` copies of a block in sequence, built with `args` (shown in layer tables)."""

    args: tuple[Any, ...]
    channels: int  # of the output
    repeats: int = 1
    scale: Fraction = Fraction(1)  # output height / input height, and the same for the width
    inner: int = 1  # repeats inside the block; layer tables show them as the layer's repeats


class PlannedModule(nn.Module, ABC):
    """Base of the blocks that architecture files can use."""

    takes_activation: ClassVar[bool] = False  # whether __init__ has the argument `activation`, set by the factory
    detector_norms: ClassVar[bool] = True  # whether the factory sets eps and momentum of its batch norms
    joins: ClassVar[bool] = False  # whether forward takes a list with one entry per source layer

    @classmethod
    @abstractmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """Make a Plan from YAML arguments.

        Args:
            channels: input channels, one entry per source layer.
            args: arguments as written in the file.
            repeats: the layer's number as written in the file.
            scaling: compound scaling to apply.

        Raises:
            UserError: the arguments are invalid.
        """


def integer(value: Any, what: str, low: int, high: int) -> int:
    """Return `value` if it is an integer from `low` to `high`; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{what} must be a whole number from {low} to {high}, not {value!r}")
    return value


def check_kernel(c1: int, c2: int, kernel: int, groups: int) -> None:
    """Raise UserError for groups that do not divide the channels, and for a kernel too large to allocate."""
    if c1 % groups or c2 % groups:
        raise UserError(f"{groups} groups do not divide {c1} and {c2} channels")
    if c1 // groups * c2 * kernel**2 > MAX_KERNEL_NUMBERS:
        raise UserError(f"a kernel of {c1 // groups}×{c2}×{kernel}×{kernel} parameters is too large")


def out_channels(args: Sequence[Any], high: int, scaling: Scaling) -> tuple[int, list[Any]]:
    """Scaled output channels, the first of 1 to `high` YAML arguments, and the remaining arguments."""
    out, *rest = arguments(args, 1, high)
    return scaling.channels(out), rest


def none_given(args: Sequence[Any], repeats: int) -> None:
    """Raise UserError if there are arguments or repeats."""
    arguments(args, 0, 0)
    integer(repeats, "number", 1, 1)


def single(channels: Sequence[int]) -> int:
    """The channels of the only source layer; raises UserError if there are several."""
    if len(channels) != 1:
        raise UserError(f"takes one source layer, not {len(channels)}")
    return channels[0]


def arguments(args: Sequence[Any], low: int, high: int) -> list[Any]:
    """The block's YAML arguments; raises UserError unless there are `low` to `high` of them."""
    if not low <= len(args) <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        raise UserError(f"takes {expected} arguments, not {len(args)}: {list(args)!r}")
    return list(args)
