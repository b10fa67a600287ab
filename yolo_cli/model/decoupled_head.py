"""Heads without anchors, whose classes and boxes have convolutions of their own (Ge et al. 2021, "YOLOX")."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.blocks.depthwise import DepthwiseConv
from yolo_cli.model.heads import Head
from yolo_cli.model.plan import MAX_CLASSES, Plan, Scaling, arguments, integer

PRIOR = 0.01  # of objectness and classes at the start (Lin et al. 2017, "Focal Loss", section 4.1)
# Beyond e¹⁰ cells a size means nothing; without the bound one wild value in training is infinite.
_LARGEST_EXPONENT = 10.0


class DecoupledHead(Head):
    """Base: per scale a 1×1 stem, then two 3×3 convolutions for classes and two for boxes; no anchors.

    Every cell has one prediction.
    """

    takes_activation = True

    def __init__(
        self, nc: int, hidden: int, depthwise: bool, channels: Sequence[int], *, activation: str = "SiLU"
    ) -> None:
        super().__init__()
        self.nc = nc
        block = DepthwiseConv if depthwise else Conv

        def branch() -> nn.Sequential:
            return nn.Sequential(*(block(hidden, hidden, 3, 1, activation=activation) for _ in range(2)))

        self.stems = nn.ModuleList(Conv.of(c, hidden, activation=activation) for c in channels)
        self.cls_convs = nn.ModuleList(branch() for _ in channels)
        self.reg_convs = nn.ModuleList(branch() for _ in channels)
        self.cls_preds = nn.ModuleList(nn.Conv2d(hidden, nc, 1) for _ in channels)
        self.reg_preds = nn.ModuleList(nn.Conv2d(hidden, self.box_outputs, 1) for _ in channels)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: nc, hidden channels, whether its 3×3 convolutions are depthwise (false)."""
        nc, hidden, *rest = arguments(args, 2, 3)
        integer(nc, "nc", 1, MAX_CLASSES)
        integer(repeats, "number", 1, 1)
        depthwise = rest[0] if rest else False
        if not isinstance(depthwise, bool):
            raise UserError(f"depthwise must be true or false, not {depthwise!r}")
        return Plan((nc, scaling.channels(hidden), depthwise, list(channels)), 0)


class DecoupledDetect(DecoupledHead):
    """YOLOX's head: the convolutions for boxes also give an objectness."""

    def __init__(
        self, nc: int, hidden: int, depthwise: bool, channels: Sequence[int], *, activation: str = "SiLU"
    ) -> None:
        super().__init__(nc, hidden, depthwise, channels, activation=activation)
        self.outputs = nc + 5
        self.obj_preds = nn.ModuleList(nn.Conv2d(hidden, 1, 1) for _ in channels)

    @torch.no_grad()
    def place(self, strides: Sequence[int]) -> None:
        """Take the strides of the scales; objectness and classes start at a probability of PRIOR."""
        super().place(strides)
        for convolution in (*self.obj_preds, *self.cls_preds):
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            convolution.bias.fill_(math.log(PRIOR / (1 - PRIOR)))

    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Box, objectness and classes of each scale along the channels."""
        result = []
        for scale, feature in enumerate(x):
            stem = self.stems[scale](feature)
            classes, boxes = self.cls_convs[scale](stem), self.reg_convs[scale](stem)
            parts = (self.reg_preds[scale](boxes), self.obj_preds[scale](boxes), self.cls_preds[scale](classes))
            result.append(torch.cat(parts, 1))
        return result

    def boxes(
        self, values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Boxes in cells: the center is the value itself, the size its exponential (Ge et al. 2021, section 2.1)."""
        return torch.cat((values[..., :2], values[..., 2:].clamp(max=_LARGEST_EXPONENT).exp() * anchor_wh), -1)
