"""Which boxes count as detections, as the NMS of an image and that of a batch apply it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.config.thresholds import Conf


@dataclass(frozen=True, slots=True)
class NMSLimits:
    """The arguments of `non_max_suppression`."""

    conf: Conf
    iou: float
    max_det: int
    multi_label: bool
    agnostic: bool = False
    classes: Int[Tensor, " k"] | None = None

    def scores(self, rows: Float[Tensor, "*n outputs"]) -> Float[Tensor, "*n classes"]:
        """Objectness times class probability; 0 for classes that are not to be detected."""
        scores = rows[..., 5:] * rows[..., 4:5]
        if self.classes is None:
            return scores
        included = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        included[self.classes[self.classes < scores.shape[-1]]] = True
        return scores.masked_fill(~included, 0.0)

    def threshold(self, device: torch.device) -> Float[Tensor, " classes"] | float:
        """The confidence threshold. One for all classes stays a number, which is faster to compare with."""
        return torch.tensor(self.conf, device=device) if isinstance(self.conf, tuple) else self.conf


def true_positions(mask: Bool[Tensor, "..."]) -> Int[Tensor, " k"]:
    """Positions of the true elements in the flattened mask."""
    if mask.device.type == "cpu":  # numpy takes an eighth of the time
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)
