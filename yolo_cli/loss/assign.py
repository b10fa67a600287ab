"""Assignment of targets to predictions by anchor shape: YOLOv5's rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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
    # Which rows are positive, if there is one for each possible match. None: all.
    valid: Bool[Tensor, " m"] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def count(self) -> Tensor | int:
        """The number of positive predictions."""
        return len(self) if self.valid is None else self.valid.sum()

    def flat_index(self, shape: Sequence[int]) -> Int[Tensor, " m"]:
        """The index of each prediction among all of the scale. `shape` begins with image, anchor, row and column."""
        _, a, h, w = shape[:4]
        return ((self.image * a + self.anchor) * h + self.row) * w + self.column


def fixed_shapes(device: torch.device) -> bool:
    """Whether assignments have a row for each possible match, so that no shape depends on values on the device.

    A GPU would be waited for to learn the number of matches. A CPU computes with the matches only, which takes as long
    and gives the same bits as ever.
    """
    return device.type == "cuda"


def assign(
    targets: Float[Tensor, "n 6"],
    anchors: Float[Tensor, "a 2"],
    grid: tuple[int, int],
    *,
    anchor_t: float,
    neighbor_bias: float = 0.5,
    fixed: bool = False,
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
        fixed: return a row for each anchor, target and neighbor, and in `valid` which of them match.

    Returns:
        The matches. A target can match any number of predictions, and a prediction any number of targets.
    """
    rows, columns = grid
    center, wh = _in_cells(targets[:, 2:4], grid), _in_cells(targets[:, 4:6], grid)
    ratio = wh[None] / anchors[:, None]  # (a, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t

    # Distances from the left and top, and from the right and bottom. The second conditions keep neighbors on the grid.
    from_end = torch.stack((columns - center[:, 0], rows - center[:, 1]), 1)
    near_low = (center % 1 < neighbor_bias) & (center > 1)
    near_high = (from_end % 1 < neighbor_bias) & (from_end > 1)
    included = torch.stack(
        (torch.ones_like(near_low[:, 0]), near_low[:, 0], near_low[:, 1], near_high[:, 0], near_high[:, 1])
    )
    right_down = torch.eye(2, device=targets.device, dtype=targets.dtype)
    offsets = torch.cat((torch.zeros_like(right_down[:1]), right_down, -right_down)) * neighbor_bias
    matches = included[:, None] & fits[None]  # (5, a, n)
    neighbor, anchor, target = _all_positions(matches) if fixed else matches.nonzero(as_tuple=True)

    center = center[target]
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
        valid=matches.flatten() if fixed else None,
    )


def _in_cells(fractions: Float[Tensor, "n 2"], grid: tuple[int, int]) -> Float[Tensor, "n 2"]:
    rows, columns = grid
    return torch.stack((fractions[:, 0] * columns, fractions[:, 1] * rows), 1)


def _all_positions(mask: Bool[Tensor, "i j k"]) -> tuple[Tensor, ...]:
    """What `nonzero` returns if all is True."""
    sides = [torch.arange(side, device=mask.device) for side in mask.shape]
    return tuple(position.flatten() for position in torch.meshgrid(*sides, indexing="ij"))
