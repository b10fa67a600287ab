"""`yolo compare`: time of a bootstrap, false alarms where there is no difference, and hotcoco's `compare` beside ours.

Parts, by --parts:
    speed         two models, 5,000 images × 100 detections × 80 classes, 1,000 resamples
    false-alarms  200 comparisons of a model with itself; at most 7% may claim a difference
    hotcoco       the same comparison by hotcoco and by us: differences, standard errors, time per resample
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
from evaluator import CLASSES, synthetic_boxes

from yolo_cli.batch import Detections
from yolo_cli.commands.compare import read_with_ground_truth
from yolo_cli.dataset.splits import load_split, prepare_dataset
from yolo_cli.evaluation.comparison import bootstrap, compare
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.weighted_ap import WeightedAP
from yolo_cli.progress import Silent

METRIC = "mAP_0.5:0.95"
SIDE = 640
THREADS = os.cpu_count() or 1


def jitter(data: EvalData, random: np.random.Generator) -> EvalData:
    """The predictions of an equally good model: N(0, 0.3) added to the logits of confidences, boxes moved by 3%.

    Nothing is clipped: equal confidences are ranked by the order of the images, which resampling changes.
    """
    pred = data.predictions
    side = np.tile(pred.xywh[:, 2:], 2)
    odds = pred.confidence / (1 - pred.confidence) * np.exp(random.normal(0, 0.3, len(pred.confidence)))
    confidence = odds / (1 + odds)
    xywh = pred.xywh + random.normal(0, 0.03, pred.xywh.shape) * side
    order = np.lexsort((-confidence, pred.image))
    new = replace(pred, xywh=xywh[order], confidence=confidence[order], class_id=pred.class_id[order])
    return replace(data, predictions=new)


def synthetic(images: int) -> EvalData:
    boxes = synthetic_boxes(images)
    found = [Detections(rows[:, :4], rows[:, 4], class_id) for _, rows, class_id in boxes]
    sizes = [(SIDE, SIDE)] * images
    return EvalData.from_images(list(range(images)), sizes, [truth for truth, _, _ in boxes], found)


def speed(images: int, resamples: int) -> dict[str, Any]:
    data = synthetic(images)
    other = jitter(data, np.random.default_rng(1))
    start, cpu = time.perf_counter(), time.process_time()
    scored = [[WeightedAP(each, CLASSES)] for each in (data, other)]
    prepared = time.perf_counter()
    bootstrap(scored, resamples=resamples, threads=THREADS)
    end = time.perf_counter()
    return {
        "images": images,
        "resamples": resamples,
        "prepare_s": prepared - start,
        "resample_s": end - prepared,
        "total_s": end - start,
        "cpu_s": time.process_time() - cpu,
        "threads": THREADS,
    }


def false_alarms(predictions: Path, data: str, comparisons: int, resamples: int, first: int) -> dict[str, Any]:
    """How often two jittered copies of the same real predictions, on images drawn from those of `data`, are told apart.

    Each comparison has its own images (drawn with replacement) and two jitters of their own, so that nothing is shared
    but the model, and the true difference is 0.
    """
    spec = prepare_dataset(data, Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=0, reporter=Silent())
    real = read_with_ground_truth(predictions, split, spec.nc)
    flagged = []
    for number in range(first, first + comparisons):
        random = np.random.default_rng(number)
        images = drawn(real, random.integers(len(real.image_ids), size=len(real.image_ids)))
        pair = [[WeightedAP(jitter(images, random), spec.nc)] for _ in range(2)]
        found = compare(bootstrap(pair, resamples=resamples, seed=number, threads=THREADS))[1].differences[METRIC]
        flagged.append(found.is_shown)
    rate = float(np.mean(flagged))
    error = float(np.sqrt(rate * (1 - rate) / comparisons))
    return {"comparisons": comparisons, "resamples": resamples, "flagged": rate, "standard_error": error}


def drawn(data: EvalData, images: np.ndarray) -> EvalData:
    """A dataset of the drawn images, each as often as it was drawn."""

    def rows(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [np.flatnonzero(of == image) for image in images]
        return np.concatenate(found), np.repeat(np.arange(len(images)), [len(each) for each in found])

    (gt_rows, gt_image), (pred_rows, pred_image) = rows(data.ground_truth.image), rows(data.predictions.image)
    gt, pred = data.ground_truth, data.predictions
    return EvalData(
        np.arange(len(images)),
        data.sizes[images],
        replace(gt, image=gt_image, class_id=gt.class_id[gt_rows], xywh=gt.xywh[gt_rows], crowd=gt.crowd[gt_rows]),
        replace(
            pred,
            image=pred_image,
            class_id=pred.class_id[pred_rows],
            xywh=pred.xywh[pred_rows],
            confidence=pred.confidence[pred_rows],
        ),
    )


def beside_hotcoco(images: int, resamples: int) -> dict[str, Any]:
    data = synthetic(images)
    pair = [data, jitter(data, np.random.default_rng(1))]
    first, second = (hotcoco_evaluation(each) for each in pair)
    start = time.perf_counter()
    found = hotcoco.compare(first, second, n_bootstrap=resamples, seed=0, confidence=0.95)
    hotcoco_s = time.perf_counter() - start
    start = time.perf_counter()
    scored = [[WeightedAP(each, CLASSES)] for each in pair]
    ours = compare(bootstrap(scored, resamples=resamples, threads=THREADS))[1].differences[METRIC]
    ours_s = time.perf_counter() - start
    return {
        "images": images,
        "resamples": resamples,
        "hotcoco_s": hotcoco_s,
        "ours_s": ours_s,
        "hotcoco": {"value": found["deltas"]["AP"], **found["ci"]["AP"]},
        "ours": {"value": ours.value, "lower": ours.low, "upper": ours.high, "std_err": ours.standard_error},
    }


def hotcoco_evaluation(data: EvalData) -> Any:
    gt, pred = data.ground_truth, data.predictions
    truth = hotcoco.COCO.from_arrays(
        [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(data.image_ids) + 1)],
        [{"id": i, "name": str(i)} for i in range(CLASSES)],
        gt.image + 1,
        gt.class_id,
        gt.xywh,
        area=gt.xywh[:, 2] * gt.xywh[:, 3],
        iscrowd=gt.crowd.astype(np.int64),
    )
    rows = np.column_stack([pred.image + 1, pred.xywh, pred.confidence, pred.class_id])
    evaluation = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.evaluate()
    return evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["speed", "false-alarms", "hotcoco"])
    parser.add_argument("--images", type=int, default=5000, help="of `speed`")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first comparison of `false-alarms`")
    parser.add_argument("--predictions", type=Path, help="predictions.json of `false-alarms`; by default yolov5n's")
    parser.add_argument("--data", default="coco128", help="dataset of --predictions")
    args = parser.parse_args()
    predictions = args.predictions
    if predictions is None and (folder := os.environ.get("YOLO_REFERENCE_DIR")):
        predictions = Path(folder) / "reference/detections/coco128_val2017_yolov5n.json"
    for part in args.parts:
        if part == "speed":
            result = speed(args.images, args.resamples)
        elif part == "hotcoco":
            result = beside_hotcoco(200, min(args.resamples, 500))
        elif predictions is None:
            print("false-alarms: left out, because neither --predictions nor YOLO_REFERENCE_DIR is given")
            continue
        else:
            result = false_alarms(predictions, args.data, args.comparisons, args.resamples, args.first)
        print(part, json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
