"""One pass of a model over a data set: images in, metrics out."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.batch import Batch, Detections, prepare_images
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.evaluation.evaluator import Evaluator, Metrics
from yolo_cli.export.runtime import Runtime
from yolo_cli.loss.losses import Loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter

Observer = Callable[[int, Batch, Sequence[Detections]], None]  # batch number, batch, detections in canvas pixels


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as a detection: the field's habit in validation."""

    conf: float = 0.001
    iou: float = 0.6
    max_det: int = 300
    single_cls: bool = False  # every class counts as the first
    multi_label: bool = True  # a box counts for every class above `conf`, not for its best alone


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics, mean losses (box, objectness, class; nan where none were computed) and where the time went."""

    metrics: Metrics
    losses: tuple[float, float, float]
    milliseconds: dict[str, float]  # an image: "load" (waiting for it), "network", "nms"


@dataclass(slots=True)
class _Clock:
    """Seconds by stage; on a GPU a stage ends when its work has ended."""

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
    loader: Iterable[Batch],
    index: LabelIndex,
    evaluator: Evaluator,
    *,
    thresholds: Thresholds,
    device: torch.device,
    reporter: Reporter,
    batches: int,
    loss: Loss | None = None,
    half: bool = False,
    image_ids: Sequence[int] | None = None,
    observe: Observer | None = None,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """Run `model` (in eval mode) over the loader and judge it; truths come from `index`, in pixels of the files.

    A model of ours can be given the `loss` to be measured, too; a runtime has its own way from images to rows.
    `image_ids` are the evaluator's ids by position in the index (the positions themselves by default). `observe` is
    shown every batch with its detections. Of several processes, `world`, each runs over its own loader; the metrics of
    all are the same, those of everything together.
    """
    evaluator.reset()
    clock = _Clock(device)
    sums, images = torch.zeros(3), 0
    with reporter.bar(batches, "validate") as bar:
        for number, batch in enumerate(loader):
            clock.stage("load")
            pixels = prepare_images(batch.images, device, half=half)
            if isinstance(model, DetectionModel):
                raw = model(pixels)
                if loss is not None:
                    sums += loss(raw, batch.targets.to(device)).values().cpu() * len(batch.indices)
                rows: Sequence[Tensor] = list(model.decode(raw))
            else:
                rows = model.predict(pixels)
            clock.stage("network")
            found = _detections(rows, thresholds)
            _judge(evaluator, batch, found, index, image_ids)
            clock.stage("nms")
            if observe is not None:
                observe(number, batch, found)
                clock.last = time.perf_counter()  # drawing is not the model's time
            images += len(batch.indices)
            bar.advance()
    metrics = _together(evaluator, world)
    total = world.all_reduce_sum(torch.cat((sums, torch.tensor([float(images)]))).to(device)).cpu()
    losses = (total[:3] / total[3].clamp(min=1)).tolist() if loss is not None else [float("nan")] * 3
    spent = {name: 1000 * seconds / max(images, 1) for name, seconds in clock.seconds.items()}
    return Evaluation(metrics, (losses[0], losses[1], losses[2]), spent)


def _together(evaluator: Evaluator, world: World) -> Metrics:
    """The metrics of all that the processes' evaluators have seen."""
    if world.size == 1:
        return evaluator.compute()
    states = world.gather_objects(evaluator.state())
    evaluator.reset()
    for state in states:
        evaluator.merge(state)
    return world.broadcast_object(evaluator.compute() if world.is_main else None)  # type: ignore[return-value]


def _detections(decoded: Sequence[Tensor], thresholds: Thresholds) -> list[Detections]:
    """What counts as detected on each image of a batch."""
    single = thresholds.single_cls
    found = non_max_suppression(
        decoded,
        conf=thresholds.conf,
        iou=thresholds.iou,
        max_det=thresholds.max_det,
        multi_label=thresholds.multi_label and not single,
        agnostic=single,
    )
    return [replace(d, class_id=torch.zeros_like(d.class_id)) for d in found] if single else found


def _judge(
    evaluator: Evaluator,
    batch: Batch,
    found: Sequence[Detections],
    index: LabelIndex,
    image_ids: Sequence[int] | None,
) -> None:
    """Hand a batch to the evaluator, everything in pixels of the image files."""
    truths, placed = [], []
    for position, letterbox, detections in zip(batch.indices, batch.letterboxes, found, strict=True):
        truths.append(truth_boxes(index, position))
        placed.append(detections.to_image(letterbox))
    ids = batch.indices if image_ids is None else [image_ids[i] for i in batch.indices]
    evaluator.update(ids, [(box.height, box.width) for box in batch.letterboxes], truths, placed)


def truth_boxes(index: LabelIndex, position: int) -> Float[Tensor, "n 5"]:
    """Rows class, x1, y1, x2, y2 of an image, in pixels of its file."""
    rows = torch.from_numpy(index.labels(position)).double()
    height, width = (int(v) for v in index.sizes[position])
    corners = cxcywh_to_xyxy(rows[:, 1:] * rows.new_tensor([width, height] * 2))
    return torch.cat((rows[:, :1], corners), 1)
