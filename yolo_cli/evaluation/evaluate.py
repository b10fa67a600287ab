"""Evaluation of a model on a dataset: one pass over the images, then the metrics."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader

from yolo_cli.batch import Batch, Detections, prepare_images
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.config.thresholds import Conf, lowest
from yolo_cli.dataset.ignore_regions import ANY_CLASS
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.evaluation.evaluator import Evaluator, Metrics
from yolo_cli.evaluation.operating_data import OperatingCollector
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.loss.losses import Loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.candidates import decode_candidates
from yolo_cli.model.heads import RawMaps
from yolo_cli.progress import Reporter

Observer = Callable[[int, Batch, Sequence[Detections]], None]  # batch number, batch, detections (network pixels)


def observe_all(observers: Sequence[Observer]) -> Observer:
    """One observer that calls several in turn."""

    def observe(number: int, batch: Batch, found: Sequence[Detections]) -> None:
        for observer in observers:
            observer(number, batch, found)

    return observe


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """Which predictions count as detections, with the usual values for evaluation; and the precision of the images."""

    conf: Conf = 0.001  # confidence threshold
    iou: float = 0.6  # IoU threshold for NMS
    max_det: int = 300  # maximum detections per image
    single_cls: bool = False  # whether all classes are evaluated as one
    multi_label: bool = True  # whether a box can have several classes
    half: bool = False  # whether images are FP16


# As `yolo detect` does, but for the confidence threshold.
DETECTING = EvalOptions(conf=0.01, iou=0.45, multi_label=False)


@dataclass(frozen=True, slots=True)
class OperatingPass:
    """A second set of detections from the same pass, on which confidence thresholds are chosen."""

    collector: OperatingCollector
    options: EvalOptions = DETECTING


@dataclass(frozen=True, slots=True)
class EvalDataset:
    """Batches of images, and the ground truth of these images."""

    loader: DataLoader[Batch]
    index: LabelIndex
    image_ids: Sequence[int] | None = None  # by position in the index; the positions by default


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics, mean losses and times."""

    metrics: Metrics
    losses: tuple[float, float, float]  # box, objectness, class; nan without a loss
    milliseconds: dict[str, float]  # per image: "load" (waiting for the loader), "network", "nms"


@dataclass(slots=True)
class _Timer:
    """Seconds per stage; on a CUDA device including the stage's asynchronous work."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "network": 0.0, "nms": 0.0})
    last: float = field(default_factory=time.perf_counter)

    def stage(self, name: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now


@torch.inference_mode()
def evaluate(
    model: DetectionModel | Runtime,
    dataset: EvalDataset,
    evaluator: Evaluator,
    options: EvalOptions,
    *,
    device: torch.device,
    reporter: Reporter,
    loss: Loss | None = None,
    observe: Observer | None = None,
    operating: OperatingPass | None = None,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """Run a model in eval mode on a dataset and compute the metrics.

    Args:
        model: a model, whose loss can be computed, too, or a runtime.
        dataset: in distributed evaluation, each rank's loader has its own share of the images.
        evaluator: is reset first; has the class names.
        options: thresholds and precision.
        device: of the model.
        reporter: shows the progress.
        loss: loss of raw predictions; computed for models only.
        observe: called for each batch with its detections.
        operating: collects a second set of detections; of this rank's images only.
        world: the ranks; all get the metrics of the whole dataset.
    """
    evaluator.reset()
    if operating is not None:
        operating.collector.reset()
    network = model.model if isinstance(model, TorchRuntime) else model
    conf = min(lowest(each.conf) for each in (options, *([operating.options] if operating else [])))
    timer = _Timer(device)
    loss_sums, images = torch.zeros(3), 0
    with reporter.bar(len(dataset.loader), "validate") as bar:
        for number, batch in enumerate(dataset.loader):
            timer.stage("load")
            pixels = prepare_images(batch.images, device, half=options.half)
            if isinstance(network, DetectionModel):
                raw = network(pixels)
                if loss is not None:
                    parts = loss(raw, batch.targets.to(device, non_blocking=True), batch.counts)
                    loss_sums += parts.values().cpu() * len(batch.indices)
                decoded = _decode(network, raw, conf)
            else:
                decoded = network.predict(pixels)
            timer.stage("network")
            detections = _detect(decoded, options)
            add_batch(evaluator, dataset, batch, _in_images(detections, batch))
            timer.stage("nms")
            if operating is not None:
                found = _detect(decoded, operating.options)
                add_batch(operating.collector, dataset, batch, _in_images(found, batch))
                timer.last = time.perf_counter()  # leave out this time, which `yolo detect` does not need
            if observe is not None:
                observe(number, batch, detections)
                timer.last = time.perf_counter()  # leave out the observer's time
            images += len(batch.indices)
            bar.advance()
    metrics = compute_metrics(evaluator, world)
    total = world.all_reduce_sum(torch.cat((loss_sums, torch.tensor([float(images)]))).to(device)).cpu()
    losses = (total[:3] / total[3].clamp(min=1)).tolist() if loss is not None else [float("nan")] * 3
    milliseconds = {name: 1000 * seconds / max(images, 1) for name, seconds in timer.seconds.items()}
    return Evaluation(metrics, (losses[0], losses[1], losses[2]), milliseconds)


def _decode(model: DetectionModel, raw: RawMaps, conf: float) -> Sequence[Tensor]:
    """Decoded rows of each image, at least those whose confidence can exceed `conf`."""
    if raw[0].is_cuda:  # choosing rows there takes longer than decoding all of them
        return model.decode(raw).unbind()
    return decode_candidates(model.head, raw, conf)


def compute_metrics(evaluator: Evaluator, world: World) -> Metrics:
    """The metrics of what the evaluators of all ranks have collected, on each rank."""
    if world.size == 1:
        return evaluator.compute()
    shards = world.gather_objects(evaluator.shard())
    evaluator.reset()
    for shard in shards:
        evaluator.merge_shard(shard)
    return world.broadcast_object(evaluator.compute() if world.is_main else None)  # type: ignore[return-value]


def _detect(decoded: Sequence[Tensor], options: EvalOptions) -> list[Detections]:
    """Detections of each image of a batch."""
    single = options.single_cls
    detections = non_max_suppression(
        decoded,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
        multi_label=options.multi_label and not single,
        agnostic=single,
    )
    return [replace(d, class_id=torch.zeros_like(d.class_id)) for d in detections] if single else detections


def _in_images(detections: Sequence[Detections], batch: Batch) -> list[Detections]:
    """Detections of a batch in pixels of the image files."""
    return [d.to_image(letterbox) for d, letterbox in zip(detections, batch.letterboxes, strict=True)]


def add_batch(
    evaluator: Evaluator | OperatingCollector, dataset: EvalDataset, batch: Batch, detections: Sequence[Detections]
) -> None:
    """Add the images of a batch and their detections, in pixels of the image files, to the evaluator."""
    truth = [ground_truth(dataset.index, position, len(evaluator.names)) for position in batch.indices]
    ids = batch.indices if dataset.image_ids is None else [dataset.image_ids[i] for i in batch.indices]
    evaluator.update(
        ids,
        [(letterbox.height, letterbox.width) for letterbox in batch.letterboxes],
        [boxes for boxes, _ in truth],
        detections,
        [crowd for _, crowd in truth],
    )


def ground_truth(index: LabelIndex, position: int, classes: int) -> tuple[Float[Tensor, "n 5"], Bool[Tensor, " n"]]:
    """Class, x1, y1, x2, y2 of the ground truth of an image, in pixels of its file, and which rows are crowd regions.

    A region for all classes is a crowd region of each.
    """
    regions = index.ignored_rows(position)
    everywhere = regions[regions[:, 0] == ANY_CLASS].repeat(classes, axis=0)
    everywhere[:, 0] = np.tile(np.arange(classes), len(everywhere) // classes)
    crowds = np.concatenate([regions[regions[:, 0] != ANY_CLASS], everywhere])
    labels = index.labels(position)
    rows = torch.from_numpy(np.concatenate([labels, crowds])).double()
    height, width = (int(v) for v in index.sizes[position])
    corners = cxcywh_to_xyxy(rows[:, 1:] * rows.new_tensor([width, height] * 2))
    return torch.cat((rows[:, :1], corners), 1), torch.arange(len(rows)) >= len(labels)
