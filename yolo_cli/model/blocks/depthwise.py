"""Depthwise separable convolutions (Howard et al. 2017, MobileNets), alone and in CSP blocks."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.blocks.csp import C3, Bottleneck
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments, check_kernel, integer, single


class DepthwiseConv(PlannedModule):
    """A k×k Conv of each channel alone, then a 1×1 Conv over channels. (b, c1, h, w) → (b, c2, h/s, w/s)."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, *, activation: str = "SiLU") -> None:
        super().__init__()
        self.depthwise = Conv.of(c1, c1, k, s, c1, activation=activation)
        self.pointwise = Conv.of(c1, c2, activation=activation)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.pointwise(self.depthwise(x))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, kernel (3), stride (1)."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 3)
        c2 = scaling.channels(out)
        kernel, stride = (rest + [3, 1][len(rest) :])[:2]
        integer(kernel, "kernel", 1, 31)
        integer(stride, "stride", 1, 8)
        check_kernel(c1, c2, 1, 1)
        return Plan((c1, c2, *rest), c2, scaling.repeats(repeats), Fraction(1, stride))


class DepthwiseBottleneck(Bottleneck):
    """A Bottleneck whose 3×3 convolution is depthwise."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5, *, activation: str = "SiLU") -> None:
        super().__init__(c1, c2, shortcut, e=e, activation=activation)
        self.cv2 = DepthwiseConv(int(c2 * e), c2, activation=activation)


class DepthwiseC3(C3):
    """A C3 whose bottlenecks have depthwise 3×3 convolutions."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, e: float = 0.5, *, activation: str = "SiLU"
    ) -> None:
        super().__init__(c1, c2, 0, e=e, activation=activation)
        hidden = int(c2 * e)
        self.m = nn.Sequential(
            *(DepthwiseBottleneck(hidden, hidden, shortcut, 1.0, activation=activation) for _ in range(n))
        )

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut (true), expansion (0.5); repeats are its bottlenecks."""
        arguments(args, 1, 3)
        return super().plan(channels, args, repeats, scaling)
