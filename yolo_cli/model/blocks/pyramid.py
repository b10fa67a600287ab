"""The feature pyramid of YOLOv3-FPN."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, none_given


class PyramidLevel(PlannedModule):
    """One level: (b, c, h, w) and, unless it is the deepest, the upsampled next level (b, d, h, w) → (b, c/2, h, w).

    Each level has a lateral convolution, as in published weight files. Only the deepest level uses it; the others
    concatenate both inputs and apply `reduce` instead.
    """

    takes_activation = True
    joins = True

    def __init__(self, c: int, deeper: int = 0, *, activation: str = "SiLU") -> None:
        super().__init__()
        half = c // 2
        self.lateral: nn.Module = nn.Conv2d(c, half, 1)
        self.reduce = nn.Conv2d(c + deeper, half, 1) if deeper else None
        if deeper:
            self.lateral.requires_grad_(False)  # not used, so it would never have a gradient
        self.refine = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (
                    Conv.of(half, c, 3, activation=activation),
                    Conv.of(c, half, activation=activation),
                )
            )
        )

    def forward(self, x: list[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b c2 h w"]:
        narrow = self.lateral(x[0]) if self.reduce is None else self.reduce(torch.cat(x, 1))
        return self.refine(narrow)

    def fuse(self) -> None:
        """Remove the lateral convolution if it is not used."""
        if self.reduce is not None:
            self.lateral = nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """Sources: the feature map and, unless it is the deepest, the upsampled next level. No YAML arguments."""
        none_given(args, repeats)
        if len(channels) > 2 or channels[0] % 2:
            raise UserError(f"takes one or two source layers, the first with even channels, not {list(channels)}")
        return Plan(tuple(channels), channels[0] // 2)
