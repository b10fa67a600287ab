"""The feature pyramid of YOLOv3-FPN: every level refines its map by the same two pairs of convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, none_given


class PyramidLevel(PlannedModule):
    """One level: (b, c, h, w) and, but for the deepest, the enlarged level below (b, d, h, w) → (b, c/2, h, w).

    Every level has a lateral convolution, as its weight files do. It is the way in at the deepest level; elsewhere
    the reduced join with the level below takes its place, and it changes no output.
    """

    takes_activation = True
    joins = True

    def __init__(self, c: int, deeper: int = 0, *, activation: str = "SiLU") -> None:
        super().__init__()
        half = c // 2
        self.lateral: nn.Module = nn.Conv2d(c, half, 1)
        self.reduce = nn.Conv2d(c + deeper, half, 1) if deeper else None
        if deeper:
            self.lateral.requires_grad_(False)  # no output depends on it, so no gradient ever comes
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
        """Drop the lateral convolution where nothing depends on it."""
        if self.reduce is not None:
            self.lateral = nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """Sources: the feature map and, but for the deepest level, the level below, enlarged. No YAML arguments."""
        none_given(args, repeats)
        if len(channels) > 2 or channels[0] % 2:
            raise UserError(f"takes a map of even channels and at most one more, not {list(channels)}")
        return Plan(tuple(channels), channels[0] // 2)
