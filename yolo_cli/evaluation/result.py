"""The metrics of an evaluation."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. Precision, recall and F1 are at IoU 0.5 and the best confidence of all classes."""

    class_id: int
    name: str
    images: int  # with the class
    labels: int
    precision: float
    recall: float
    f1: float
    map50: float
    map50_95: float


@dataclass(frozen=True)
class Curves:
    """Curves at IoU 0.5 of the classes with ground truth; row i is of class `class_ids[i]`.

    `precision[i, j]`, `recall[i, j]` and `f1[i, j]` are of the predictions with confidence ≥ `confidence[j]`; precision
    is nan if there are none. `envelope[i, j]` is COCO's interpolated precision: the highest precision at any recall ≥
    `recall_grid[j]`, 0 if that recall is not reached.
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
    """Metrics of a dataset: means over the classes with ground truth; nan without ground truth.

    `precision`, `recall` and `f1` are at `best_confidence`, where the mean F1 at IoU 0.5 is highest; a class without
    predictions there has precision 0. Average precisions are COCO's, in 0 … 1: `map50` and `map75` at one IoU,
    `map50_95` and the sizes over IoU 0.5 … 0.95. Small boxes have an area below 32² pixels of the image file, medium
    ones below 96². `confusion[i, j]` is the number of predictions of class i for ground truth of class j at IoU 0.5 and
    confidence ≥ 0.25; the last row has missed ground truth, the last column predictions of background. `per_class` and
    `curves` have only classes with ground truth.
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
        """Criterion for the best epoch of a training: 0.1 mAP@0.5 + 0.9 mAP@0.5:0.95; 0 without ground truth."""
        value = 0.1 * self.map50 + 0.9 * self.map50_95
        return 0.0 if math.isnan(value) else value

    def to_dict(self) -> dict[str, object]:
        """The metrics in results.json; None for nan."""
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
