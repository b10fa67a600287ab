"""Assignment of targets to predictions by anchor shape: YOLOv5's rule."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """Positive predictions of one scale: row i pairs the prediction (image, anchor, row, column)[i] with a target."""

    image: Int[Tensor, " m"]
    anchor: Int[Tensor, " m"]
    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    class_id: Int[Tensor, " m"]
    box: Float[Tensor, "m 4"]  # of the target, in cells: center relative to the cell's corner, width, height
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
    neighbor_bias: float = 0.5,
) -> Assignment:
    """Assign targets to the anchors and cells of one scale.

    A target matches an anchor if its width and height differ from the anchor's by factors below `anchor_t`. It is
    assigned to the cell that contains its center, and to each horizontal and vertical neighbor whose edge is less than
    `neighbor_bias` cells from the center. Neighbors outside the grid are left out.

    Args:
        targets: image, class, cx, cy, w, h; boxes are fractions of the network input.
        anchors: width and height in cells of this scale.
        grid: rows and columns of this scale.
        anchor_t: threshold of the side ratio.
        neighbor_bias: distance in cells at which a neighboring cell is included, at most 1.

    Returns:
        The matches. A target can match any number of predictions, and a prediction any number of targets.
    """
    rows, columns = grid
    size = targets.new_tensor([columns, rows])
    center, wh = targets[:, 2:4] * size, targets[:, 4:6] * size
    ratio = wh[None] / anchors[:, None]  # (a, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t
    anchor, target = fits.nonzero(as_tuple=True)
    center = center[target]

    # Distances from the left and top, and from the right and bottom. The second conditions keep neighbors on the grid.
    from_end = size - center
    near_low = (center % 1 < neighbor_bias) & (center > 1)
    near_high = (from_end % 1 < neighbor_bias) & (from_end > 1)
    included = torch.stack(
        (torch.ones_like(near_low[:, 0]), near_low[:, 0], near_low[:, 1], near_high[:, 0], near_high[:, 1])
    )
    offsets = targets.new_tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) * neighbor_bias
    neighbor, match = included.nonzero(as_tuple=True)

    center, anchor, target = center[match], anchor[match], target[match]
    cell = (center - offsets[neighbor]).long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    center_in_cell = center - torch.stack((column, row), 1)
    matched = targets[target]
    return Assignment(
        image=matched[:, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        class_id=matched[:, 1].long(),
        box=torch.cat((center_in_cell, wh[target]), 1),
        anchor_wh=anchors[anchor],
        target=target,
    )
