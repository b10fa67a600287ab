"""Residual bottlenecks and the cross-stage-partial block of YOLOv5 (Wang et al. 2020, CSPNet)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.model.blocks.activations import activation as make_activation
from yolo_cli.model.blocks.conv import BN_EPS, BN_MOMENTUM, Conv, fuse_conv_bn
from yolo_cli.model.plan import MAX_REPEATS, Plan, PlannedModule, Scaling, arguments, integer, single


class Bottleneck(PlannedModule):
    """1×1 convolution to `e`·c2 channels, 3×3 to c2; the input is added if `shortcut` is set and c1 = c2."""

    takes_activation = True

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, *, activation: str = "SiLU"
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv.of(c1, hidden, 1, 1, activation=activation)
        self.cv2: nn.Module = Conv.of(hidden, c2, 3, 1, g, activation=activation)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut (true), groups (1), expansion (0.5)."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 4)
        c2 = scaling.channels(out)
        return Plan((c1, c2, *rest), c2, scaling.repeats(repeats))


class C3(PlannedModule):
    """Two 1×1 branches, one through `n` bottlenecks, joined by a 1×1 convolution. (b, c1, h, w) → (b, c2, h, w)."""

    takes_activation = True

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv.of(c1, hidden, activation=activation)
        self.cv2 = Conv.of(c1, hidden, activation=activation)
        self.cv3 = Conv.of(2 * hidden, c2, activation=activation)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, 1.0, activation=activation) for _ in range(n)))

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut (true), groups (1), expansion (0.5). Repeats are its bottlenecks."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 4)
        c2 = scaling.channels(out)
        n = integer(scaling.repeats(repeats), "repeats", 1, MAX_REPEATS)
        return Plan((c1, c2, n, *rest), c2, inner=n)


class BottleneckCSP(PlannedModule):
    """The predecessor of C3: plain convolutions end the branches; batch norm and LeakyReLU(0.1) follow the join."""

    takes_activation = True

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv.of(c1, hidden, activation=activation)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv.of(2 * hidden, c2, activation=activation)
        self.bn: nn.Module = nn.BatchNorm2d(2 * hidden, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = make_activation("LeakyReLU(0.1)")
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, 1.0, activation=activation) for _ in range(n)))

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))

    def fuse(self) -> None:
        """Fold each half of the joint batch norm into the convolution that feeds it; eval mode only."""
        if isinstance(self.bn, nn.BatchNorm2d):
            hidden = self.cv2.out_channels
            self.cv3 = fuse_conv_bn(self.cv3, channels_of(self.bn, 0, hidden))
            self.cv2 = fuse_conv_bn(self.cv2, channels_of(self.bn, hidden, 2 * hidden))
            self.bn = nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut (true), groups (1), expansion (0.5). Repeats are its bottlenecks."""
        return replace(C3.plan(channels, args, repeats, scaling), inner=1)  # published tables do not show its repeats


def channels_of(bn: nn.BatchNorm2d, start: int, stop: int) -> nn.BatchNorm2d:
    """The batch norm of the channels from `start` to `stop` − 1."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("batch norm without running statistics cannot be fused")
    part = nn.BatchNorm2d(stop - start, eps=bn.eps, device=bn.weight.device, dtype=bn.weight.dtype)
    with torch.no_grad():
        part.weight.copy_(bn.weight[start:stop])
        part.bias.copy_(bn.bias[start:stop])
    part.running_mean, part.running_var = bn.running_mean[start:stop], bn.running_var[start:stop]
    return part.train(bn.training)
