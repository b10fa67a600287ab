"""Detection heads: from feature maps to raw predictions, and from raw predictions to boxes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments

# Per scale: (batch, anchors, rows, columns, outputs); outputs are the box's values, objectness, if any, and classes.
RawMaps = list[Float[Tensor, "b _ _ _ o"]]
Boxes = Callable[[Tensor, Tensor, int], Tensor]  # `Head.boxes`


def sigmoid_boxes(values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """YOLOv5's box coding: the center in cells relative to the cell's corner, width and height in the anchor's unit.

    center = 2σ − 0.5 and size = (2σ)²·anchor, with σ the sigmoid. A box is at most four times its anchor.
    """
    doubled = values.sigmoid() * 2
    return torch.cat((doubled[..., :2] - 0.5, doubled[..., 2:].square() * anchor_wh), -1)


class Head(PlannedModule):
    """Base of detection heads: classes, strides and box coding, as the model and the losses use them."""

    joins = True
    nc: int
    outputs: int  # channels per prediction of a cell: those of the box, 1 objectness, classes
    box_outputs: int = 4  # channels of the box
    has_objectness: bool = True
    strides: tuple[int, ...] = ()  # set by place()

    @classmethod
    def main_sources(cls, count: int) -> int:
        """The number of source layers of predictions; the rest of the `count` are of auxiliary outputs."""
        return count

    def place(self, strides: Sequence[int]) -> None:
        """Set the strides of the scales."""
        self.strides = tuple(strides)

    def base_wh(self, scale: int) -> Float[Tensor, "a 2"]:
        """The width and height in cells that box sizes are relative to, per prediction of a cell.

        Without anchors it is the cell itself, and a cell has one prediction.
        """
        return torch.ones(1, 2, device=next(self.parameters()).device)

    @abstractmethod
    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """One map per scale with anchors × outputs channels."""

    def forward(self, x: list[Float[Tensor, "b _ _ _"]]) -> RawMaps:
        """Raw predictions per scale, (batch, anchors, rows, columns, outputs), before any sigmoid."""
        return [self.split_anchors(y) for y in self.maps(x)]

    def split_anchors(self, y: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b a h w o"]:
        """Split the channels of a map into anchors and outputs."""
        b, channels, h, w = y.shape
        split = y.view(b, channels // self.outputs, self.outputs, h, w)
        return split.permute(0, 1, 3, 4, 2).contiguous()

    @abstractmethod
    def boxes(
        self, values: Float[Tensor, "*n v"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Decode the raw box values of one scale, in cells: center relative to the cell's corner, width and height.

        The only definition of this head's box coding: `decode` and the losses use it. `anchor_wh` is from `base_wh`.
        """

    def confidence(self, values: Float[Tensor, "*n o"]) -> Float[Tensor, "*n c"]:
        """Objectness and class probabilities of raw predictions; their product is the confidence."""
        return values[..., self.box_outputs :].sigmoid()

    def highest_logit(self, values: Float[Tensor, "n o"]) -> Float[Tensor, " n"]:
        """The logit of what `confidence` gives as objectness, which no class can exceed."""
        return values[:, self.box_outputs]

    def decode(self, raw: RawMaps) -> Float[Tensor, "b n k"]:
        """Predictions of all scales: cx, cy, w, h in pixels, objectness, class probabilities."""
        rows = []
        for scale, (values, stride) in enumerate(zip(raw, self.strides, strict=True)):
            y = values.float()
            b, a, h, w, _ = y.shape
            box = self.boxes(y[..., : self.box_outputs], self.base_wh(scale)[:a].view(a, 1, 1, 2), scale)
            center = (box[..., :2] + cell_grid(h, w, y.device)) * stride
            decoded = torch.cat((center, box[..., 2:] * stride, self.confidence(y)), -1)
            rows.append(decoded.view(b, a * h * w, decoded.shape[-1]))
        return torch.cat(rows, 1)


class AnchorHead(Head):
    """Base of heads whose box sizes are relative to anchors."""

    # (scales, anchors, 2): width and height in cells of the scale. A scale with fewer anchors than others is padded
    # with zeros, which no box matches.
    anchors: Tensor
    stores_anchor_grid = False  # whether state dicts also have the anchors in pixels, as those of older releases do

    def place(self, strides: Sequence[int]) -> None:
        """Set the strides of the scales and divide the anchors, in pixels until now, by them."""
        super().place(strides)
        if not self.anchors.is_meta:  # on the meta device the division would import sympy, which is slower than torch
            self.anchors /= torch.tensor(strides, dtype=torch.float32).reshape(-1, 1, 1)

    def base_wh(self, scale: int) -> Float[Tensor, "a 2"]:
        """The anchors of a scale."""
        return self.anchors[scale].float()


class Detect(AnchorHead):
    """One 1×1 convolution per scale to anchors × (4 box + 1 objectness + classes) channels."""

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
        super().__init__()
        self.nc, self.outputs = nc, nc + 5
        self.per_scale = len(anchors[0]) // 2
        pixels = torch.tensor(anchors, dtype=torch.float32).reshape(len(anchors), -1, 2)
        self.anchors = nn.Buffer(pixels)
        self.m = nn.ModuleList(nn.Conv2d(c, self.outputs * self.per_scale, 1) for c in channels)

    def place(self, strides: Sequence[int]) -> None:
        """Set the strides, divide the anchors by them, and initialize the biases, which depend on them."""
        super().place(strides)
        self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Add a prior of about 8 objects per 640×640 image and of equally likely classes to the biases.

        It keeps the first steps stable (Lin et al. 2017, "Focal Loss", section 3.3).
        """
        self._add_prior(self.m)

    def _add_prior(self, convolutions: nn.ModuleList) -> None:
        for convolution, stride in zip(convolutions, self.strides, strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            bias = convolution.bias.view(self.per_scale, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (self.nc - 0.99999))

    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Apply the convolution of each scale."""
        return [convolution(feature) for feature, convolution in zip(x, self.m, strict=True)]

    def boxes(
        self, values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Decode by `sigmoid_boxes`."""
        return sigmoid_boxes(values, anchor_wh)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: the words `nc` and `anchors`, which stand for the file's values."""
        nc, anchors = arguments(args, 2, 2)
        if isinstance(nc, bool) or not isinstance(nc, int) or not isinstance(anchors, tuple | list):
            raise UserError(f"takes the words nc and anchors, not {list(args)!r}")
        if not all(isinstance(scale, tuple | list) for scale in anchors):
            raise UserError(f"anchors are a list per scale, not {anchors!r}")
        if len({len(scale) for scale in anchors}) > 1:
            raise UserError("every scale must have the same number of anchors")
        if len(anchors) != cls.main_sources(len(channels)):
            raise UserError(f"{len(channels)} source layers but anchors for {len(anchors)} scales")
        return Plan((nc, [list(scale) for scale in anchors], list(channels)), 0)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.stores_anchor_grid:
            pixels = self.anchors * self.anchors.new_tensor(self.strides).reshape(-1, 1, 1)
            destination[prefix + "anchor_grid"] = pixels.view(len(self.strides), 1, -1, 1, 1, 2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "anchor_grid", None)  # redundant: `anchors` has the same values in cells
        super()._load_from_state_dict(state_dict, prefix, *args)


def cell_grid(h: int, w: int, device: torch.device) -> Float[Tensor, "h w 2"]:
    """The column and row index of each cell."""
    row = torch.arange(h, dtype=torch.float32, device=device)
    column = torch.arange(w, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(row, column, indexing="ij")[::-1], -1)
