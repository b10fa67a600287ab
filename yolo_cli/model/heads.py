"""Detection heads: feature maps to raw predictions, and raw predictions to boxes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments

RawMaps = list[Float[Tensor, "b _ _ _ o"]]  # per scale: image, anchor, row, column, numbers
Boxes = Callable[[Tensor, Tensor, int], Tensor]  # a head's `boxes`


def sigmoid_boxes(values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Raw box values as centre (relative to the cell's corner), width and height, in units of the anchor's.

    With σ the sigmoid and a the anchor: centre = 2σ − 0.5, size = (2σ)²·a, which bounds a box to four times its anchor.
    """
    doubled = values.sigmoid() * 2
    return torch.cat((doubled[..., :2] - 0.5, doubled[..., 2:].square() * anchor_wh), -1)


class Head(PlannedModule):
    """What the model, the loss and the tools know of a head: classes, anchors, strides, and how boxes are coded."""

    joins = True
    # (scales, anchors, 2): width and height in units of the scale's stride. A scale with fewer anchors than another
    # is filled up with zeros, which no box ever matches.
    anchors: Tensor
    nc: int
    outputs: int  # numbers an anchor: 4 box + 1 objectness + classes
    strides: tuple[int, ...] = ()  # set by place(), once the factory knows them

    stores_anchor_grid = False

    @classmethod
    def main_sources(cls, count: int) -> int:
        """How many of its `count` source layers give the predictions; the rest only help in training."""
        return count

    def place(self, strides: Sequence[int], *, stores_anchor_grid: bool = False) -> None:
        """Take the strides of the scales: anchors become multiples of them.

        `stores_anchor_grid` says whether state dicts hold the anchors in pixels too, as those of older releases do.
        """
        self.strides = tuple(strides)
        self.stores_anchor_grid = stores_anchor_grid
        if not self.anchors.is_meta:  # dividing there would make torch import sympy, for longer than torch itself takes
            self.anchors /= torch.tensor(strides, dtype=torch.float32).reshape(-1, 1, 1)

    @abstractmethod
    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """The scales' maps of anchors × numbers channels, as convolutions give them."""

    def forward(self, x: list[Float[Tensor, "b _ _ _"]]) -> RawMaps:
        """Raw predictions per scale, (b, anchors, h, w, 5 + classes), before any sigmoid."""
        return [self._cells(y) for y in self.maps(x)]

    def _cells(self, y: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b a h w o"]:
        """A map with its channels taken apart into anchors and numbers."""
        b, channels, h, w = y.shape
        split = y.view(b, channels // self.outputs, self.outputs, h, w)
        return split.permute(0, 1, 3, 4, 2).contiguous()

    @abstractmethod
    def boxes(
        self, values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Boxes of one scale from raw values: centre relative to the cell's corner, width and height; in cells.

        The one definition of this head's code: `decode` and the loss both use it. `anchor_wh` is in cells.
        """

    def decode(self, raw: RawMaps) -> Float[Tensor, "b n o"]:
        """Rows cx, cy, w, h in pixels, objectness, class probabilities."""
        rows = []
        for scale, (values, stride) in enumerate(zip(raw, self.strides, strict=True)):
            y = values.float()
            b, a, h, w, o = y.shape
            box = self.boxes(y[..., :4], self.anchors[scale, :a].float().view(a, 1, 1, 2), scale)
            centre = (box[..., :2] + cell_grid(h, w, y.device)) * stride
            found = torch.cat((centre, box[..., 2:] * stride, y[..., 4:].sigmoid()), -1)
            rows.append(found.view(b, a * h * w, o))
        return torch.cat(rows, 1)


class Detect(Head):
    """One 1×1 convolution per scale to anchors × (4 box + 1 objectness + classes) numbers per cell."""

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
        super().__init__()
        self.nc, self.outputs = nc, nc + 5
        self.per_scale = len(anchors[0]) // 2
        pixels = torch.tensor(anchors, dtype=torch.float32).reshape(len(anchors), -1, 2)
        self.anchors = nn.Buffer(pixels)
        self.m = nn.ModuleList(nn.Conv2d(c, self.outputs * self.per_scale, 1) for c in channels)

    def place(self, strides: Sequence[int], *, stores_anchor_grid: bool = False) -> None:
        """Take the strides of the scales: anchors become multiples of them, biases start from them."""
        super().place(strides, stores_anchor_grid=stores_anchor_grid)
        self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Start from about 8 objects in a 640-pixel image and classes equally likely.

        A prior in the bias keeps the first steps stable (Lin et al. 2017, "Focal Loss", section 3.3).
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
        """A convolution a scale."""
        return [convolution(feature) for feature, convolution in zip(x, self.m, strict=True)]

    def boxes(
        self, values: Float[Tensor, "*n 4"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Boxes in cells, by `sigmoid_boxes`."""
        return sigmoid_boxes(values, anchor_wh)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: `nc` and `anchors`, those of the file's head lines."""
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
        state_dict.pop(prefix + "anchor_grid", None)  # says nothing that `anchors` does not
        super()._load_from_state_dict(state_dict, prefix, *args)


def cell_grid(h: int, w: int, device: torch.device) -> Float[Tensor, "h w 2"]:
    """Column and row of each cell."""
    row = torch.arange(h, dtype=torch.float32, device=device)
    column = torch.arange(w, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(row, column, indexing="ij")[::-1], -1)
