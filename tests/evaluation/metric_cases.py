"""Small datasets for the evaluator's tests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.evaluation.evaluator import Evaluator


@dataclass
class Case:
    """Arguments of `Evaluator.update` for several images."""

    names: list[str]
    ids: list[int]
    sizes: list[tuple[int, int]]
    ground_truth: list[Tensor]
    detections: list[Detections]
    crowd: list[Tensor]

    def evaluator(self, batch: int = 1000, order: list[int] | None = None) -> Evaluator:
        order = list(range(len(self.ids))) if order is None else order
        evaluator = Evaluator(self.names)
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            evaluator.update(
                [self.ids[i] for i in at],
                [self.sizes[i] for i in at],
                [self.ground_truth[i] for i in at],
                [self.detections[i] for i in at],
                [self.crowd[i] for i in at],
            )
        return evaluator


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """From rows x1, y1, x2, y2, confidence, class."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def boxes(*rows: tuple[int, float, float, float, float]) -> Tensor:
    """From rows class, x1, y1, x2, y2."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def random_case(
    seed: int,
    *,
    images: int = 6,
    classes: int = 4,
    max_ground_truth: int = 8,
    max_predictions: int = 20,
    ties: bool = True,
    crowd: float = 0.1,
    small_grid: bool = False,
) -> Case:
    """Random boxes, many near ground truth. `ties`: few distinct confidences; `small_grid`: few distinct positions."""
    rng = np.random.default_rng(seed)
    case = Case([f"c{i}" for i in range(classes)], [], [], [], [], [])
    # One class has no ground truth, and one has no predictions.
    true_classes, found_classes = max(1, classes - 1), np.arange(classes)[1 if classes > 2 else 0 :]
    for image in rng.choice(10_000, images, replace=False):
        m, n = rng.integers(0, max_ground_truth + 1), rng.integers(0, max_predictions + 1)
        boxes = _boxes(rng, m, small_grid)
        class_id = rng.integers(0, true_classes, m)
        found, found_class = _boxes(rng, n, small_grid), rng.choice(found_classes, n)
        near = (rng.random(n) < 0.7) & (m > 0)
        if near.any():
            copied = rng.integers(0, m, near.sum())
            step = 4 if small_grid else 1
            jitter = rng.normal(0, 1 if small_grid else 6, (near.sum(), 4))
            found[near] = boxes[copied] + np.round(jitter / step) * step
            found_class[near] = np.where(rng.random(near.sum()) < 0.8, class_id[copied], found_class[near])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        confidence = rng.choice(np.linspace(0.05, 1, 8), n) if ties else rng.random(n)
        case.ids.append(int(image))
        case.sizes.append((480, 640))
        case.ground_truth.append(torch.tensor(np.column_stack([class_id, boxes]), dtype=torch.float32))
        case.detections.append(
            Detections(
                torch.tensor(found, dtype=torch.float32),
                torch.tensor(confidence, dtype=torch.float32),
                torch.tensor(found_class, dtype=torch.int64),
            )
        )
        case.crowd.append(torch.tensor(rng.random(m) < crowd))
    return case


def _boxes(rng: np.random.Generator, count: int, small_grid: bool) -> np.ndarray:
    if small_grid:
        corner, side = rng.integers(0, 8, (count, 2)) * 8.0, rng.integers(1, 4, (count, 2)) * 8.0
    else:
        corner, side = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2, 5.3, (count, 2)))
    return np.concatenate([corner, corner + side], axis=1)


def from_json(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> Case:
    """A case from COCO JSON. Boxes are float64, as pycocotools reads them."""
    names = [c["name"] for c in truth["categories"]]
    truth_rows: dict[int, list[list[float]]] = {i["id"]: [] for i in truth["images"]}
    found_rows: dict[int, list[list[float]]] = {i["id"]: [] for i in truth["images"]}
    for a in truth["annotations"]:
        x, y, w, h = a["bbox"]
        truth_rows[a["image_id"]].append([a["category_id"], x, y, x + w, y + h])
    for p in predictions:
        x, y, w, h = p["bbox"]
        found_rows[p["image_id"]].append([x, y, x + w, y + h, p["score"], p["category_id"]])
    case = Case(names, [], [], [], [], [])
    for image in truth["images"]:
        table = torch.tensor(found_rows[image["id"]], dtype=torch.float64).reshape(-1, 6)
        case.ids.append(image["id"])
        case.sizes.append((image["height"], image["width"]))
        case.ground_truth.append(torch.tensor(truth_rows[image["id"]], dtype=torch.float64).reshape(-1, 5))
        case.detections.append(Detections(table[:, :4], table[:, 4], table[:, 5].long()))
        case.crowd.append(torch.zeros(len(case.ground_truth[-1]), dtype=torch.bool))
    return case
