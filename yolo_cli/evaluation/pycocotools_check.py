"""The same metrics by pycocotools, the reference implementation: slow, used to check our evaluator."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def pycocotools_metrics(
    ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Average precisions by pycocotools, with the names of results.json; None without ground truth.

    Args:
        ground_truth: a COCO dataset (see `coco_json`).
        predictions: a list of COCO results.
    """
    precision = coco_precision(ground_truth, predictions)
    values = {
        "mAP_0.5": precision[0, ..., 0],
        "mAP_0.75": precision[5, ..., 0],
        "mAP_0.5:0.95": precision[..., 0],
        "mAP_small": precision[..., 1],
        "mAP_medium": precision[..., 2],
        "mAP_large": precision[..., 3],
    }
    return {name: float(of[of > -1].mean()) if (of > -1).any() else None for name, of in values.items()}


def coco_precision(
    ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> Float[np.ndarray, "10 101 classes 4"]:
    """pycocotools' precision by IoU, recall, class and area (all, small, medium, large), for 100 predictions per class.

    -1 if there is no ground truth of that class and size.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # Copies, because pycocotools adds fields to its arguments. It cannot read an empty list of results.
        coco_gt = COCO()
        coco_gt.dataset = {"info": {}} | copy.deepcopy(dict(ground_truth))
        coco_gt.createIndex()
        if predictions:
            coco_pred = coco_gt.loadRes(copy.deepcopy(list(predictions)))
        else:
            coco_pred = COCO()
            coco_pred.dataset = coco_gt.dataset | {"annotations": []}
            coco_pred.createIndex()
        evaluation = COCOeval(coco_gt, coco_pred, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]
