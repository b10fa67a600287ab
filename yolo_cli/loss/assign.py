"""Which predictions answer for which target: anchors by side ratio, cells with their nearest neighbours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """Matches of one scale. Row i says that prediction (image, anchor, row, column)[i] answers for a target."""

    image: Int[Tensor, " m"]
    anchor: Int[Tensor, " m"]
    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    class_id: Int[Tensor, " m"]
    box: Float[Tensor, "m 4"]  # the target: centre relative to the cell's corner, width and height; in cells
    anchor_wh: Float[Tensor, "m 2"]  # in cells
    target: Int[Tensor, " m"]  # row of the targets tensor

    def __len__(self) -> int:
        return len(self.image)


def assign(
    targets: Float[Tensor, "n 6"],
    anchors: Float[Tensor, "a 2"],
    grid: tuple[int, int],
    *,
    anchor_t: float,
    neighbour_bias: float = 0.5,
) -> Assignment:
    """Match targets to the anchors and cells of one scale.

    A target matches an anchor where neither side differs by a factor of `anchor_t` or more. It is given to the cell
    that holds its centre, and to the horizontal and vertical neighbours nearer than `neighbour_bias` cells to it,
    as long as they are on the grid.

    Args:
        targets: image, class, cx, cy, w, h; the box as fractions of the canvas.
        anchors: width and height in cells of this scale.
        grid: rows and columns of this scale.
        anchor_t: largest side ratio.
        neighbour_bias: reach of a target beyond its own cell, at most 1.
    """
    rows, columns = grid
    size = targets.new_tensor([columns, rows])
    centre, wh = targets[:, 2:4] * size, targets[:, 4:6] * size
    ratio = wh[None] / anchors[:, None]  # (a, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t
    anchor, target = fits.nonzero(as_tuple=True)
    centre = centre[target]

    # Distance to the cell's near edges, and from the far edges of the whole grid (so that no neighbour lies outside).
    from_end = size - centre
    near_low = (centre % 1 < neighbour_bias) & (centre > 1)
    near_high = (from_end % 1 < neighbour_bias) & (from_end > 1)
    reach = torch.stack(
        (torch.ones_like(near_low[:, 0]), near_low[:, 0], near_low[:, 1], near_high[:, 0], near_high[:, 1])
    )
    steps = targets.new_tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) * neighbour_bias
    step, match = reach.nonzero(as_tuple=True)

    centre, anchor, target = centre[match], anchor[match], target[match]
    cell = (centre - steps[step]).long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    offset = centre - torch.stack((column, row), 1)
    chosen = targets[target]
    return Assignment(
        image=chosen[:, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        class_id=chosen[:, 1].long(),
        box=torch.cat((offset, wh[target]), 1),
        anchor_wh=anchors[anchor],
        target=target,
    )
