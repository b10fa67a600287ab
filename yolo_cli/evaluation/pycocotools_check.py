"""What pycocotools says of the same boxes: slow, and the measure of all."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def referee(truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The average precisions by pycocotools, under the names they have in results.json.

    `truth` is a COCO data set and `predictions` a COCO result list, as `coco_json` makes them; neither is changed.
    None stands for what the truths cannot tell.
    """
    precision = coco_precision(truth, predictions)
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
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> Float[np.ndarray, "10 101 classes 4"]:
    """pycocotools' precision over IoU, recall, class and area (all, small, medium, large), 100 detections a class.

    -1 stands where there is no truth of that class and size.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # pycocotools adds fields to what it is given, and cannot read an empty result list.
        expected = COCO()
        expected.dataset = {"info": {}} | copy.deepcopy(dict(truth))
        expected.createIndex()
        if predictions:
            got = expected.loadRes(copy.deepcopy(list(predictions)))
        else:
            got = COCO()
            got.dataset = expected.dataset | {"annotations": []}
            got.createIndex()
        evaluation = COCOeval(expected, got, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1]
