"""Time to evaluate 5,000 images × 100 detections × 80 classes: our evaluator and pycocotools.

Our time includes the conversion of the tensors in updates of 32 images, and the curves and the confusion matrix.
pycocotools and faster-coco-eval get COCO dicts; the time is of indexing, `evaluate` and `accumulate`. The mAP of all
three must be equal to 1e-6. pycocotools takes minutes and runs only in `--pycocotools-runs` rounds.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Figures,
    Measure,
    alternate,
    answer,
    ask,
    environment,
    options,
    peer_pythons,
    report,
    workplace,
)

CLASSES, DETECTIONS, GROUND_TRUTH, UPDATE = 80, 100, 7, 32
MEASURES = (Measure("evaluate", "s", False, "under 2 s; 50 × pycocotools"), Measure("mAP", "", True))


def synthetic_boxes(images: int) -> list[tuple[Any, Any, Any]]:
    """Per image ground truth (class, x1, y1, x2, y2), detections (x1, y1, x2, y2, confidence) and their classes.

    Three of ten detections are near ground truth and have its class; the rest is noise.
    """
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    result = []
    for _ in range(images):
        count = int(random.poisson(GROUND_TRUTH)) + 1
        corner, side = random.uniform(0, 400, (count, 2)), np.exp(random.uniform(np.log(8), np.log(230), (count, 2)))
        classes = random.integers(CLASSES, size=count)
        ground_truth = np.column_stack([classes, corner, corner + side])
        near = random.integers(count, size=DETECTIONS)
        is_near = random.random(DETECTIONS) < 0.3
        xyxy = ground_truth[near, 1:] + random.normal(0, 0.08, (DETECTIONS, 4)) * np.tile(side[near], 2)
        low, extent = random.uniform(0, 400, (DETECTIONS, 2)), random.uniform(8, 200, (DETECTIONS, 2))
        xyxy = np.where(is_near[:, None], xyxy, np.column_stack([low, low + extent]))
        confidence = np.where(is_near, random.beta(3, 2, DETECTIONS), random.beta(1, 4, DETECTIONS))
        class_id = np.where(is_near, classes[near], random.integers(CLASSES, size=DETECTIONS))
        order = np.argsort(-confidence, kind="stable")
        rows = np.column_stack([xyxy, confidence])[order].astype(np.float32)
        result.append((torch.from_numpy(ground_truth), torch.from_numpy(rows), torch.from_numpy(class_id[order])))
    return result


def ours(data: list[tuple[Any, Any, Any]]) -> tuple[dict[str, float], Any]:
    from yolo_cli.batch import Detections
    from yolo_cli.evaluation.evaluator import Evaluator

    start = time.perf_counter()
    evaluator = Evaluator([str(i) for i in range(CLASSES)])
    for first in range(0, len(data), UPDATE):
        part = data[first : first + UPDATE]
        evaluator.update(
            range(first + 1, first + len(part) + 1),
            [(640, 640)] * len(part),
            [ground_truth for ground_truth, _, _ in part],
            [Detections(rows[:, :4], rows[:, 4], class_id) for _, rows, class_id in part],
        )
    metrics = evaluator.compute()
    return {"evaluate": time.perf_counter() - start, "mAP": metrics.map50_95}, evaluator.state()


def evaluate_with(coco: Any, cocoeval: Any, ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> Figures:
    """Evaluate with the classes `COCO` and `COCOeval` of a package."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        coco_gt = coco()
        coco_gt.dataset = ground_truth
        coco_gt.createIndex()
        evaluation = cocoeval(coco_gt, coco_gt.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        elapsed = time.perf_counter() - start
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {"evaluate": elapsed, "mAP": float(precision[precision > -1].mean())}


def work(task: dict[str, str]) -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    ground_truth, results = (json.loads(Path(task[name]).read_text()) for name in ("ground_truth", "results"))
    answer(evaluate_with(COCO, COCOeval_faster, ground_truth, results))


def main() -> None:
    parser = options(__doc__, runs=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--pycocotools-runs", type=int, default=1, help="rounds in which pycocotools runs, too")
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.task))
        return
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from yolo_cli.evaluation.coco_json import coco_ground_truth, coco_predictions

    peers = peer_pythons(args.peers, ("ultralytics",))  # that environment has faster-coco-eval, too
    data = synthetic_boxes(args.images)
    ours(data[:UPDATE])
    _, state = ours(data)
    names = [str(i) for i in range(CLASSES)]
    with workplace() as folder:
        sides = {OURS: lambda: ours(data)[0]}
        if "ultralytics" in peers:
            task = {"ground_truth": str(folder / "ground_truth.json"), "results": str(folder / "results.json")}
            Path(task["ground_truth"]).write_text(json.dumps(coco_ground_truth(state, names)))
            Path(task["results"]).write_text(json.dumps(coco_predictions(state)))
            python = peers["ultralytics"]
            env = environment(folder, python)
            sides["faster-coco-eval"] = lambda: ask(python, __file__, "faster-coco-eval", task, env, folder)
        official = {
            "pycocotools": lambda: evaluate_with(
                COCO, COCOeval, coco_ground_truth(state, names), coco_predictions(state)
            )
        }
        count = min(args.pycocotools_runs, args.runs)
        rounds = alternate(sides | official, count) + alternate(sides, args.runs - count)
    values = [figures["mAP"] for one in rounds for figures in one.values()]
    if max(values) - min(values) > 1e-6:
        sys.exit(f"the evaluators differ: mAP from {min(values)} to {max(values)}")
    settings = {"images": args.images, "detections": DETECTIONS, "classes": CLASSES, "runs": args.runs}
    report("evaluator", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
