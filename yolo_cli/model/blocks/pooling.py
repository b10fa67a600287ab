"""Spatial pyramid pooling (He et al. 2015)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments, integer, single


class SPPF(PlannedModule):
    """Pyramid pooling by one k×k max pool applied three times: the same as pools of k, 2k−1 and 3k−2, faster."""

    takes_activation = True

    def __init__(self, c1: int, c2: int, k: int = 5, *, activation: str = "SiLU") -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv.of(c1, hidden, activation=activation)
        self.cv2 = Conv.of(4 * hidden, c2, activation=activation)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h w"]:
        """Pool three times over, concatenate, mix."""
        pools = [self.cv1(x)]
        for _ in range(3):
            pools.append(self.m(pools[-1]))
        y: Tensor = self.cv2(torch.cat(pools, 1))
        return y

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, pool size 5."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 2)
        for k in rest:
            integer(k, "pool size", 1, 31)
        c2 = scaling.channels(out)
        return Plan((c1, c2, *rest), c2, scaling.repeats(repeats))
