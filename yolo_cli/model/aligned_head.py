"""A head without anchors and objectness, whose boxes are distributions of distances (Li et al. 2020, "GFL")."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.model.decoupled_head import DecoupledHead

BINS = 16  # a distance is the mean of a distribution over 0, 1, …, 15 cells (Li et al. 2020, section 3.1)
START = 2.0  # cells from a center to each side of its box at the start: boxes of four cells, about what anchors have
# At the start, a cell has this share of the objects of a 640×640 image (Detect.reset_bias has the same eight objects),
# each of which is assigned to about ten cells.
_OBJECTS, _CELLS_PER_OBJECT = 8, 10


class AlignedDetect(DecoupledHead):
    """A decoupled head for task-aligned assignment (Feng et al. 2021, "TOOD").

    A prediction has 4 × 16 box values, then the classes. The distances from the center of the cell to the left, upper,
    right and lower side of the box are the means of four distributions. The confidence of a class is its probability.
    """

    box_outputs = 4 * BINS
    has_objectness = False

    def __init__(
        self, nc: int, hidden: int, depthwise: bool, channels: Sequence[int], *, activation: str = "SiLU"
    ) -> None:
        super().__init__(nc, hidden, depthwise, channels, activation=activation)
        self.outputs = self.box_outputs + nc

    @torch.no_grad()
    def place(self, strides: Sequence[int]) -> None:
        """Take the strides of the scales and initialize the biases, which depend on them.

        Classes start at the share of cells that are assigned to a target of the class (Lin et al. 2017, "Focal Loss",
        section 4.1). Distances start with a geometric distribution, whose mean is START.
        """
        super().place(strides)
        falling = torch.arange(BINS) * math.log(START / (1 + START))
        for boxes, classes, stride in zip(self.reg_preds, self.cls_preds, strides, strict=True):
            assert isinstance(boxes.bias, Tensor)
            assert isinstance(classes.bias, Tensor)
            boxes.bias.copy_(falling.repeat(4))
            cells = (640 / stride) ** 2 * len(strides)
            prior = min(_OBJECTS * _CELLS_PER_OBJECT / cells / self.nc, 0.5)
            classes.bias.fill_(math.log(prior / (1 - prior)))

    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Box and classes of each scale along the channels."""
        result = []
        for scale, feature in enumerate(x):
            stem = self.stems[scale](feature)
            boxes = self.reg_preds[scale](self.reg_convs[scale](stem))
            result.append(torch.cat((boxes, self.cls_preds[scale](self.cls_convs[scale](stem))), 1))
        return result

    def boxes(
        self, values: Float[Tensor, "*n v"], anchor_wh: Float[Tensor, "*#n 2"], scale: int
    ) -> Float[Tensor, "*n 4"]:
        """Boxes in cells, from the mean distances to the sides (Li et al. 2020, equation 4)."""
        distribution = values.unflatten(-1, (4, BINS)).softmax(-1)
        bins = torch.arange(BINS, dtype=values.dtype, device=values.device)
        to_low, to_high = (distribution * bins).sum(-1).chunk(2, -1)
        return torch.cat((0.5 + (to_high - to_low) / 2, (to_low + to_high) * anchor_wh), -1)

    def confidence(self, values: Float[Tensor, "*n o"]) -> Float[Tensor, "*n c"]:
        """The highest class probability as objectness, and all relative to it, so that the products are the classes'.

        Whatever chooses boxes by objectness, such as NMS, then works as it does for other heads.
        """
        classes = super().confidence(values)
        highest = classes.amax(-1, keepdim=True)
        return torch.cat((highest, classes / highest.clamp(min=torch.finfo(classes.dtype).tiny)), -1)

    def highest_logit(self, values: Float[Tensor, "n o"]) -> Float[Tensor, " n"]:
        """The highest logit of the classes."""
        return values[:, self.box_outputs :].amax(1)
