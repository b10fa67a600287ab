"""Layers without weights: joining and resizing feature maps."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments, integer, single


class Concat(PlannedModule):
    """Concatenation of several layers' outputs along channels."""

    joins = True

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b c h w"]:
        return torch.cat(x, self.d)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: dimension (1), which must be 1."""
        if arguments(args, 0, 1) not in ([], [1]):
            raise UserError(f"the dimension must be 1, not {args[0]!r}")
        return Plan((1,), sum(channels))


class Upsample(PlannedModule):
    """Upsampling by a whole factor."""

    def __init__(self, size: None = None, factor: int = 2, mode: str = "nearest") -> None:
        super().__init__()
        self.resize = nn.Upsample(size, factor, mode)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.resize(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments, as for torch.nn.Upsample: size, which must be null, factor, mode."""
        size, factor, mode = arguments(args, 3, 3)
        if size is not None:
            raise UserError("a fixed output size is not supported", fix="use null and a factor")
        integer(factor, "factor", 1, 16)
        if mode not in ("nearest", "bilinear", "bicubic"):
            raise UserError(f"mode must be nearest, bilinear or bicubic, not {mode!r}")
        return Plan((None, factor, mode), single(channels), 1, Fraction(factor))


class Shortcut(PlannedModule):
    """Sum of several layers' outputs."""

    joins = True

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
        return torch.stack(x).sum(0) if len(x) > 2 else x[0] + x[-1]

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: dimension (1), which must be 1 and has no effect; published files have it."""
        if arguments(args, 0, 1) not in ([], [1]):
            raise UserError(f"the dimension must be 1, not {args[0]!r}")
        if len(channels) < 2 or len(set(channels)) > 1:
            raise UserError(f"needs two or more source layers of equal channels, not {list(channels)}")
        return Plan((1,), channels[0])


class ZeroPad2d(PlannedModule):
    """Zero padding. The stride does not change: the next pool or convolution reduces the map by the padding."""

    def __init__(self, sides: Sequence[int]) -> None:
        super().__init__()
        self.m = nn.ZeroPad2d((sides[0], sides[1], sides[2], sides[3]))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.m(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: [left, right, top, bottom]."""
        (sides,) = arguments(args, 1, 1)
        if not isinstance(sides, list | tuple) or len(sides) != 4:
            raise UserError(f"padding must be [left, right, top, bottom], not {sides!r}")
        return Plan(([integer(side, "padding", 0, 31) for side in sides],), single(channels))
