"""The head of Darknet networks: all [yolo] sections of a .cfg in file order."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.heads import AnchorHead, sigmoid_boxes
from yolo_cli.model.plan import MAX_CLASSES, Plan, Scaling, arguments, integer

# Limits a size to e¹⁰ anchors, so that a single outlier in training does not become infinite.
_LARGEST_EXPONENT = 10.0


class DarknetDetect(AnchorHead):
    """Head without layers: its inputs already have anchors × (4 box + 1 objectness + classes) channels."""

    def __init__(
        self,
        nc: int,
        anchors: Sequence[Sequence[float]],
        scale_xy: Sequence[float],
        new_coords: Sequence[bool],
    ) -> None:
        super().__init__()
        self.nc, self.outputs = nc, nc + 5
        self.scale_xy, self.new_coords = tuple(scale_xy), tuple(new_coords)
        most = max(len(scale) for scale in anchors)
        filled = [[*scale, *[0.0] * (most - len(scale))] for scale in anchors]
        self.anchors = nn.Buffer(torch.tensor(filled, dtype=torch.float32).reshape(len(anchors), -1, 2))

    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the inputs: in a .cfg the convolutions precede the [yolo] sections."""
        return x

    def boxes(
        self, values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Decode boxes in cells.

        With σ the sigmoid, t the raw value and s = scale_x_y: center = s·σ − (s − 1)/2 and size = exp(t)·anchor
        (Redmon & Farhadi 2018, section 2.1; s from Bochkovskiy et al. 2020, section 3.4). With new_coords the size is
        (2σ)²·anchor (Wang et al. 2021, Scaled-YOLOv4).
        """
        s = self.scale_xy[scale]
        center = values[..., :2].sigmoid() * s - (s - 1) / 2
        if self.new_coords[scale]:
            size = sigmoid_boxes(values, anchor_wh)[..., 2:]
        else:
            size = values[..., 2:].clamp(max=_LARGEST_EXPONENT).exp() * anchor_wh
        return torch.cat((center, size), -1)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: nc, anchors, scale_x_y per scale, new_coords per scale."""
        nc, anchors, scale_xy, new_coords = arguments(args, 4, 4)
        for name, values in (("anchors", anchors), ("scale_x_y", scale_xy), ("new_coords", new_coords)):
            if not isinstance(values, tuple) or len(values) != len(channels):
                raise UserError(f"{name} must be a list of {len(channels)}, one per source layer, not {values!r}")
        integer(nc, "nc", 1, MAX_CLASSES)
        if not all(isinstance(scale, tuple | list) and scale and not len(scale) % 2 for scale in anchors):
            raise UserError(f"anchors must be pairs w, h per scale, not {anchors!r}")
        for scale, received in zip(anchors, channels, strict=True):
            if received != len(scale) // 2 * (nc + 5):
                raise UserError(f"source has {received} channels, needs {len(scale) // 2} anchors × (5 + {nc})")
        if not all(isinstance(s, int | float) and not isinstance(s, bool) and 0 < s <= 10 for s in scale_xy):
            raise UserError(f"scale_x_y must be greater than 0 and at most 10, not {scale_xy!r}")
        if not all(isinstance(flag, bool) for flag in new_coords):
            raise UserError(f"new_coords must be true or false, not {new_coords!r}")
        return Plan((nc, [list(scale) for scale in anchors], list(scale_xy), list(new_coords)), 0)
