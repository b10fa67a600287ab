"""Ignore regions in the loss: cells whose centers lie in one have no objectness loss, unless they have a target."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from yolo_cli.batch import TargetCounts


def split_targets(
    targets: Float[Tensor, "n 6"], counts: TargetCounts | None
) -> tuple[Float[Tensor, "t 6"], Float[Tensor, "r 6"]]:
    """Targets (image, class, cx, cy, w, h), and regions, whose class is negative.

    With `counts`, the regions are the last rows, and nothing is read from a GPU.
    """
    if counts is not None:
        boxes = len(targets) - counts.regions
        return targets[:boxes], targets[boxes:]
    region = targets[:, 1] < 0
    return targets[~region], targets[region]


def cells_to_ignore(
    regions: Float[Tensor, "r 6"], batch: int, rows: int, columns: int
) -> Bool[Tensor, "b rows columns"]:
    """Which cells of a map have their center in a region of their image."""
    x = (torch.arange(columns, device=regions.device) + 0.5) / columns
    y = (torch.arange(rows, device=regions.device) + 0.5) / rows
    low, high = regions[:, 2:4] - regions[:, 4:] / 2, regions[:, 2:4] + regions[:, 4:] / 2
    in_columns = (x >= low[:, :1]) & (x < high[:, :1])
    in_rows = (y >= low[:, 1:]) & (y < high[:, 1:])
    inside = (in_rows[:, :, None] & in_columns[:, None, :]).float()
    count = inside.new_zeros(batch, rows, columns).index_add_(0, regions[:, 0].long(), inside)
    return count > 0
