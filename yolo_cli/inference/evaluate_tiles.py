"""Evaluation in tiles: the images are looked at as `yolo detect --tile` does."""

import time
from dataclasses import replace

import torch

from yolo_cli.batch import Detections
from yolo_cli.dataset.images import decode_image
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.evaluation.evaluate import (
    EvalDataset,
    Evaluation,
    Observer,
    OperatingPass,
    add_batch,
    compute_metrics,
)
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.inference.predictor import Predictor, Timing
from yolo_cli.progress import Reporter


def evaluate_tiled(
    predictor: Predictor,
    dataset: EvalDataset,
    evaluator: Evaluator,
    *,
    single_cls: bool = False,
    tiles_per_batch: int = 1,
    reporter: Reporter,
    observe: Observer | None = None,
    operating: OperatingPass | None = None,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """Evaluate on whole images and their tiles, with the detections merged; there are no losses.

    `dataset.loader` yields the images as a whole, letterboxed, for `observe`; the tiles are cut from the files. The
    detections of `operating` are those at or above its confidence threshold.
    """
    evaluator.reset()
    if operating is not None:
        operating.collector.reset()
    timing, loading, images = Timing(), 0.0, 0
    with reporter.bar(len(dataset.loader), "validate") as bar:
        for number, batch in enumerate(dataset.loader):
            found = []
            for position in batch.indices:
                start = time.perf_counter()
                pixels = decode_image(dataset.index.content(position), dataset.index.path(position))
                loading += time.perf_counter() - start
                detections = predictor.predict_tiled(pixels, batch=tiles_per_batch, timing=timing)
                if single_cls:
                    detections = replace(detections, class_id=torch.zeros_like(detections.class_id))
                found.append(detections)
            add_batch(evaluator, dataset, batch, found)
            if operating is not None:
                conf = operating.options.conf
                assert isinstance(conf, float)
                add_batch(operating.collector, dataset, batch, [_at_least(d, conf) for d in found])
            if observe is not None:
                on_canvas = [d.to_canvas(place) for d, place in zip(found, batch.letterboxes, strict=True)]
                observe(number, batch, on_canvas)
            images += len(found)
            bar.advance()
    seconds = {"load": 1000 * loading, "network": timing.network, "nms": timing.nms}
    milliseconds = {name: value / max(images, 1) for name, value in seconds.items()}
    return Evaluation(compute_metrics(evaluator, world), (float("nan"),) * 3, milliseconds)


def _at_least(detections: Detections, conf: float) -> Detections:
    """The detections with at least that confidence; they are in order of confidence."""
    count = int((detections.confidence >= conf).sum())
    columns = (detections.xyxy[:count], detections.confidence[:count], detections.class_id[:count])
    return Detections(*columns, detections.names)
