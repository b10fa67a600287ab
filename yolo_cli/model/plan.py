"""What a block says of itself before it is built: its arguments, output channels and change of size."""

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
MAX_KERNEL_NUMBERS = 2**28  # of one convolution: thirty times the largest published one


@dataclass(frozen=True, slots=True)
class Scaling:
    """Compound scaling of an architecture: depth multiplies repeats, width multiplies channels."""

    depth: float = 1.0
    width: float = 1.0

    def channels(self, channels: Any) -> int:
        """Scaled channels, rounded up to a multiple of 8 as the published models do."""
        scaled = math.ceil(integer(channels, "channels", 1, MAX_CHANNELS) * self.width / 8) * 8
        return integer(scaled, "channels", 1, MAX_CHANNELS)

    def repeats(self, repeats: int) -> int:
        """Scaled repeats; one stays one."""
        return max(round(repeats * self.depth), 1) if repeats > 1 else repeats


@dataclass(frozen=True, slots=True)
class Plan:
    """One layer to build: `repeats` copies of a block in sequence, called with `args` (those of layer tables)."""

    args: tuple[Any, ...]
    channels: int  # that come out
    repeats: int = 1
    scale: Fraction = Fraction(1)  # height (and width) of the output over that of the input
    inner: int = 1  # repeats inside the block, where layer tables show them in the place of `repeats`


class PlannedModule(nn.Module, ABC):
    """Base of every block that an architecture file may name."""

    takes_activation: ClassVar[bool] = False  # whether __init__ has `activation`, which the factory then fills in
    detector_norms: ClassVar[bool] = True  # whether the factory gives its batch norms the detectors' eps and momentum
    joins: ClassVar[bool] = False  # whether forward takes a list, one entry per source layer

    @classmethod
    @abstractmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """Read YAML arguments into a Plan; `channels` has one entry per source layer.

        Raises UserError for arguments that make no sense.
        """


def integer(value: Any, what: str, low: int, high: int) -> int:
    """A whole number within bounds, or a UserError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{what} must be a whole number from {low} to {high}, not {value!r}")
    return value


def check_kernel(c1: int, c2: int, kernel: int, groups: int) -> None:
    """Refuse groups that do not fit, and a kernel that alone would fill memory, before any is asked for."""
    if c1 % groups or c2 % groups:
        raise UserError(f"{groups} groups do not divide {c1} and {c2} channels")
    if c1 // groups * c2 * kernel**2 > MAX_KERNEL_NUMBERS:
        raise UserError(f"a kernel of {c1 // groups}×{c2}×{kernel}×{kernel} numbers is too large to build")


def out_channels(args: Sequence[Any], high: int, scaling: Scaling) -> tuple[int, list[Any]]:
    """Scaled output channels from the first of 1 … `high` YAML arguments, and the arguments after it."""
    out, *rest = arguments(args, 1, high)
    return scaling.channels(out), rest


def none_given(args: Sequence[Any], repeats: int) -> None:
    """Refuse arguments and repeats where a block takes none."""
    arguments(args, 0, 0)
    integer(repeats, "number", 1, 1)


def single(channels: Sequence[int]) -> int:
    """The channels of a block's only source."""
    if len(channels) != 1:
        raise UserError(f"takes one source layer, not {len(channels)}")
    return channels[0]


def arguments(args: Sequence[Any], low: int, high: int) -> list[Any]:
    """The block's YAML arguments, checked for their count."""
    if not low <= len(args) <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        raise UserError(f"takes {expected} arguments, not {len(args)}: {list(args)!r}")
    return list(args)
