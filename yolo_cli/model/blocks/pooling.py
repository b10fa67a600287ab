"""Pooling: plain, spatial pyramid (He et al. 2015), and downsampling by a pool and a convolution."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments, integer, out_channels, single

_MAX_POOLS = 32  # of a pyramid; published ones have 3


class SPPF(PlannedModule):
    """Fast spatial pyramid pooling: one k×k max pool applied three times equals pools of k, 2k−1 and 3k−2."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, k: int = 5, *, activation: str = "SiLU") -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv.of(c1, hidden, activation=activation)
        self.cv2 = Conv.of(4 * hidden, c2, activation=activation)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        pools = [self.cv1(x)]
        for _ in range(3):
            pools.append(self.m(pools[-1]))
        return self.cv2(torch.cat(pools, 1))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, pool size (5)."""
        c1, (c2, rest) = single(channels), out_channels(args, 2, scaling)
        for k in rest:
            _odd(k)
        return Plan((c1, c2, *rest), c2, scaling.repeats(repeats))


class SPP(PlannedModule):
    """Spatial pyramid pooling by parallel max pools."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13), *, activation: str = "SiLU") -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv.of(c1, hidden, activation=activation)
        self.cv2 = Conv.of(hidden * (len(k) + 1), c2, activation=activation)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in k)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [pool(x) for pool in self.m], 1))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, pool sizes ([5, 9, 13])."""
        c1, (c2, rest) = single(channels), out_channels(args, 2, scaling)
        for sizes in rest:
            if not isinstance(sizes, list | tuple) or not 1 <= len(sizes) <= _MAX_POOLS:
                raise UserError(f"pool sizes must be a list of 1 to {_MAX_POOLS}, not {sizes!r}")
            for size in sizes:
                _odd(size)
        return Plan((c1, c2, *(list(sizes) for sizes in rest)), c2, scaling.repeats(repeats))


class SPPCSPC(PlannedModule):
    """Spatial pyramid pooling in one of two cross-stage-partial branches (Wang et al. 2023, YOLOv7)."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, n: int = 1, *, activation: str = "SiLU") -> None:
        super().__init__()
        self.cv1 = Conv.of(c1, c2, activation=activation)
        self.cv2 = Conv.of(c1, c2, activation=activation)
        self.cv3 = Conv.of(c2, c2, 3, activation=activation)
        self.cv4 = Conv.of(c2, c2, activation=activation)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in (5, 9, 13))
        self.cv5 = Conv.of(4 * c2, c2, activation=activation)
        self.cv6 = Conv.of(c2, c2, 3, activation=activation)
        self.cv7 = Conv.of(2 * c2, c2, activation=activation)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        narrow = self.cv4(self.cv3(self.cv1(x)))
        pooled = self.cv6(self.cv5(torch.cat([narrow] + [pool(narrow) for pool in self.m], 1)))
        return self.cv7(torch.cat((pooled, self.cv2(x)), 1))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels. Layer tables show the number of repeats, always 1, as third argument."""
        c1, (c2, _) = single(channels), out_channels(args, 1, scaling)
        return Plan((c1, c2, integer(repeats, "number", 1, 1)), c2)


class DownC(PlannedModule):
    """Downsampling by two branches with half of the output channels each: a strided convolution and a max pool."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, n: int = 1, k: int = 2, *, activation: str = "SiLU") -> None:
        super().__init__()
        self.cv1 = Conv.of(c1, c1, activation=activation)
        self.cv2 = Conv.of(c1, c2 // 2, 3, k, activation=activation)
        self.cv3 = Conv.of(c1, c2 // 2, activation=activation)
        self.mp = nn.MaxPool2d(k, k)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return torch.cat((self.cv2(self.cv1(x)), self.cv3(self.mp(x))), 1)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, factor (2). Layer tables show the repeats, always 1, as third argument."""
        c1, (c2, rest) = single(channels), out_channels(args, 2, scaling)
        factor = integer(rest[0] if rest else 2, "factor", 1, 8)
        if c2 % 2:
            raise UserError(f"output channels must be even, not {c2}")
        return Plan((c1, c2, integer(repeats, "number", 1, 1), *rest), c2, 1, Fraction(1, factor))


class MP(PlannedModule):
    """k×k max pool with stride k."""

    def __init__(self, k: int = 2) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, k)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.m(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: factor (2)."""
        integer(repeats, "number", 1, 1)
        given = arguments(args, 0, 1)
        factor = integer(given[0] if given else 2, "factor", 1, 8)
        return Plan(tuple(given), single(channels), 1, Fraction(1, factor))


class SP(PlannedModule):
    """k×k max pool with "same" padding."""

    def __init__(self, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, s, k // 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.m(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: pool size (3), stride (1)."""
        integer(repeats, "number", 1, 1)
        given = arguments(args, 0, 2)
        size, stride = given + [3, 1][len(given) :]
        _odd(size)
        return Plan(tuple(given), single(channels), 1, Fraction(1, integer(stride, "stride", 1, 8)))


class MaxPool2d(PlannedModule):
    """torch.nn.MaxPool2d."""

    def __init__(self, k: int, s: int | None = None, p: int = 0) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, s, p)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.m(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: pool size, stride (the pool size), padding (0)."""
        integer(repeats, "number", 1, 1)
        given = arguments(args, 1, 3)
        size = integer(given[0], "pool size", 1, 31)
        stride = size if len(given) < 2 or given[1] is None else integer(given[1], "stride", 1, 31)
        integer(given[2] if len(given) > 2 else 0, "padding", 0, size // 2)
        return Plan(tuple(given), single(channels), 1, Fraction(1, stride))


def _odd(size: Any) -> None:
    """Raise UserError unless the size is odd; even sizes would change the map's size."""
    if integer(size, "pool size", 1, 31) % 2 == 0:
        raise UserError(f"pool size must be odd, not {size}")
