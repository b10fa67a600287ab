"""What an evaluation says."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ClassMetrics:
    """One class: precision, recall and F1 at the overall best confidence and IoU 0.5; average precisions."""

    class_id: int
    name: str
    images: int  # that show the class
    labels: int
    precision: float
    recall: float
    f1: float
    map50: float
    map50_95: float


@dataclass(frozen=True)
class Curves:
    """Curves at IoU 0.5 of the classes that have truths; row i belongs to class `class_ids[i]`.

    `precision[i, j]`, `recall[i, j]` and `f1[i, j]` count the detections of confidence ≥ `confidence[j]`; the precision
    is nan where there are none. `envelope[i, j]` is the highest precision reached at recall ≥ `recall_grid[j]`, 0 where
    that recall is not reached: COCO's interpolated precision-recall curve.
    """

    class_ids: Int[np.ndarray, " classes"]
    confidence: Float[np.ndarray, " samples"]
    precision: Float[np.ndarray, "classes samples"]
    recall: Float[np.ndarray, "classes samples"]
    f1: Float[np.ndarray, "classes samples"]
    recall_grid: Float[np.ndarray, " recalls"]
    envelope: Float[np.ndarray, "classes recalls"]


@dataclass(frozen=True)
class Metrics:
    """The whole data set. Means run over the classes that have truths; without any truth they are nan.

    `precision`, `recall` and `f1` hold at `best_confidence`, where the mean F1 at IoU 0.5 is highest; a class of which
    nothing is found there counts with precision 0. The average precisions are COCO's, in 0 … 1: `map50` and `map75` at
    one IoU, `map50_95` and the sizes (area below 32², below 96², above, in pixels of the image file) over IoU 0.5 …
    0.95. `confusion[i, j]` counts detections of class i (row, predicted) on truths of class j (column, true) at IoU 0.5
    and confidence ≥ 0.25; the last row counts truths that were missed, the last column detections of background.
    `per_class` and `curves` have the classes with truths only.
    """

    images: int
    labels: int
    precision: float
    recall: float
    f1: float
    best_confidence: float
    map50: float
    map75: float
    map50_95: float
    map_small: float
    map_medium: float
    map_large: float
    per_class: tuple[ClassMetrics, ...]
    curves: Curves
    confusion: Int[np.ndarray, "side side"]

    @property
    def fitness(self) -> float:
        """What training ranks epochs by: 0.1 mAP@0.5 + 0.9 mAP@0.5:0.95, and 0 where there is no truth."""
        value = 0.1 * self.map50 + 0.9 * self.map50_95
        return 0.0 if math.isnan(value) else value

    def to_dict(self) -> dict[str, object]:
        """The part of results.json that is ours; null stands for what the truths cannot tell."""
        return {
            "images": self.images,
            "labels": self.labels,
            "best_confidence": _known(self.best_confidence),
            "metrics": {
                "precision": _known(self.precision),
                "recall": _known(self.recall),
                "F1": _known(self.f1),
                "mAP_0.5": _known(self.map50),
                "mAP_0.75": _known(self.map75),
                "mAP_0.5:0.95": _known(self.map50_95),
                "mAP_small": _known(self.map_small),
                "mAP_medium": _known(self.map_medium),
                "mAP_large": _known(self.map_large),
            },
            "per_class": [
                {
                    "class": c.class_id,
                    "name": c.name,
                    "images": c.images,
                    "labels": c.labels,
                    "precision": c.precision,
                    "recall": c.recall,
                    "F1": c.f1,
                    "mAP_0.5": c.map50,
                    "mAP_0.5:0.95": c.map50_95,
                }
                for c in self.per_class
            ],
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
