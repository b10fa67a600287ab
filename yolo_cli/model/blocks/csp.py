"""Residual bottlenecks and the cross-stage-partial block of YOLOv5 (Wang et al. 2020, CSPNet)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import MAX_REPEATS, Plan, PlannedModule, Scaling, arguments, integer, single


class Bottleneck(PlannedModule):
    """1×1 to `e`·c2 channels, 3×3 back; added to the input where `shortcut` and the channels allow."""

    takes_activation = True

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, *, activation: str = "SiLU"
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv.of(c1, hidden, 1, 1, activation=activation)
        self.cv2 = Conv.of(hidden, c2, 3, 1, g, activation=activation)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        """Bottleneck, with the residual where there is one."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut true, groups 1, expansion 0.5."""
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
        """Both branches, concatenated and mixed."""
        y: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return y

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, shortcut true, groups 1, expansion 0.5; repeats are its bottlenecks."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 4)
        c2 = scaling.channels(out)
        n = integer(scaling.repeats(repeats), "repeats", 1, MAX_REPEATS)
        return Plan((c1, c2, n, *rest), c2)
