"""Scores of resampled datasets against pycocotools on datasets that really repeat their images."""

import numpy as np
import pytest
from metric_cases import random_case

from yolo_cli.evaluation.coco_json import coco_ground_truth, coco_predictions
from yolo_cli.evaluation.pycocotools_check import coco_precision
from yolo_cli.evaluation.weighted_ap import WeightedAP

CLASSES = 4


def by_pycocotools(truth: dict, predictions: list, weights: np.ndarray) -> np.ndarray:
    """AP by area, IoU and class of the dataset in which image i stands `weights[i]` times."""
    images, boxes, found = [], [], []
    for image, times in zip(truth["images"], weights.tolist(), strict=True):
        for _ in range(times):
            new = len(images) + 1
            images.append({**image, "id": new})
            for box in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
                boxes.append({**box, "id": len(boxes) + 1, "image_id": new})
            found += [{**p, "image_id": new} for p in predictions if p["image_id"] == image["id"]]
    precision = coco_precision({**truth, "images": images, "annotations": boxes}, found)
    return np.where(precision > -1, precision, np.nan).mean(axis=1).transpose(2, 0, 1)


@pytest.mark.parametrize("seed", range(12))
def test_ap_of_resampled_images_is_that_of_pycocotools(seed: int) -> None:
    # Without equal confidences: COCO leaves their order to the sorting.
    case = random_case(seed, images=9, classes=CLASSES, ties=False, crowd=0.2 * (seed % 2))
    data = case.evaluator().state()
    truth, predictions = coco_ground_truth(data, case.names), coco_predictions(data)
    score = WeightedAP(data, CLASSES)
    for weights in (np.ones(9, dtype=np.int64), np.random.default_rng(seed).multinomial(9, [1 / 9] * 9)):
        np.testing.assert_allclose(score(weights), by_pycocotools(truth, predictions, weights), atol=1e-9)


@pytest.mark.parametrize("options", [{"max_predictions": 0}, {"max_ground_truth": 0}, {"crowd": 1.0}])
def test_nothing_to_find_or_nothing_found(options: dict) -> None:
    data = random_case(1, classes=CLASSES, **options).evaluator().state()
    ap = WeightedAP(data, CLASSES)(np.ones(len(data.image_ids), dtype=np.int64))
    known = ap[~np.isnan(ap)]
    assert (known == 0).all()
    assert bool(known.size) == ("max_predictions" in options)


def test_more_predictions_than_coco_counts() -> None:
    case = random_case(5, images=3, classes=2, max_ground_truth=60, max_predictions=600, ties=False)
    data = case.evaluator().state()
    weights = np.array([2, 0, 1])
    expected = by_pycocotools(coco_ground_truth(data, case.names), coco_predictions(data), weights)
    np.testing.assert_allclose(WeightedAP(data, 2)(weights), expected, atol=1e-9)
