"""`yolo val`: judge weights on a split of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from yolo_cli.batch import Batch, Detections
from yolo_cli.config import ValConfig
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.spec import DataSpec
from yolo_cli.dataset.splits import Split, class_names, load_split, prepare_dataset
from yolo_cli.device import check_half, default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.coco_json import coco_ground_truth, coco_predictions, image_ids, write_predictions
from yolo_cli.evaluation.evaluate import Evaluation, Observer, Thresholds, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.evaluation.pycocotools_check import referee
from yolo_cli.progress import Reporter
from yolo_cli.run import reports
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_options
from yolo_cli.weights.load import LoadedModel, load_model, resolve_image_size, warn_of_fixed_thresholds


def run(config: ValConfig, reporter: Reporter) -> Evaluation:
    """Judge as the options say. Raises UserError for anything that the user can mend."""
    device = select_device(config.device)
    check_half(config.half, device)
    path = weights_or_newest(config.weights, config.project, reporter)
    opened = load_model(path, device, reporter, cfg=config.cfg, half=config.half)
    warn_of_fixed_thresholds(opened, config.conf, config.iou, config.max_det, reporter)
    spec = prepare_dataset(config.data, reporter)
    names = _check_classes(opened.names, spec, config, path, reporter)
    img = resolve_image_size(opened, config.img, ValConfig().img, reporter)
    weights = opened.weights
    if weights and weights.origin == "darknet" and weights.img and weights.img != img:
        reporter.info(f"its .cfg is made for {_sides(weights.img)}; judged at {_sides(img)} (--img)")
    workers = default_workers(config.workers, config.batch)
    split = load_split(
        spec, config.task, single_cls=config.single_cls, strict=config.strict, workers=workers, reporter=reporter
    )
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    write_options(folder / "opt.yaml", replace(config, weights=str(path), img=img))
    reports.write_dataset_report(folder, (split,))
    evaluator = Evaluator(names)
    observers = _observers(config, folder, names, split.index)
    evaluation = _evaluate(config, opened, split, evaluator, img, workers, device, observers, reporter)
    _write(config, folder, path, evaluation, evaluator, split, device, reporter)
    reports.print_table(evaluation, reporter.info, verbose=config.verbose)
    reporter.info(f"results in {folder}")
    return evaluation


def _check_classes(
    known: Sequence[str], spec: DataSpec, config: ValConfig, weights: Path, reporter: Reporter
) -> tuple[str, ...]:
    """The class names, where weights and data set agree on their number. Raises UserError where they do not."""
    names = class_names(spec, single_cls=config.single_cls)
    if config.single_cls:
        return names
    if len(known) != len(names):
        raise UserError(
            f"knows {len(known)} classes, but {spec.source} has {len(names)}",
            where=weights,
            fix="give the data set that it was trained on, or train it on this one first",
        )
    differing = [f"{a} / {b}" for a, b in zip(known, names, strict=True) if a.strip().lower() != b.strip().lower()]
    if differing and not all(name.isdigit() for name in known):
        reporter.warn(f"{len(differing)} class names of weights and data set differ, e.g. {differing[0]}")
    return names


def _evaluate(
    config: ValConfig,
    opened: LoadedModel,
    split: Split,
    evaluator: Evaluator,
    img: tuple[int, int],
    workers: int,
    device: torch.device,
    observers: Sequence[Observer],
    reporter: Reporter,
) -> Evaluation:
    rect = opened.img is None  # a file of one size takes images of that size alone
    loader = val_loader(split.index, img=img, batch=config.batch, stride=opened.stride, workers=workers, rect=rect)
    # What is suppressed already is not suppressed again.
    iou = config.iou if opened.runtime.metadata.nms is None else 1.0

    def observe(number: int, batch: Batch, found: Sequence[Detections]) -> None:
        for observer in observers:
            observer(number, batch, found)

    return evaluate(
        opened.runtime,
        loader,
        split.index,
        evaluator,
        thresholds=Thresholds(config.conf, iou, config.max_det, config.single_cls),
        device=device,
        reporter=reporter,
        batches=len(loader),
        half=config.half,
        image_ids=image_ids([split.index.path(i) for i in range(len(split.index))]),
        observe=observe if observers else None,
    )


class TxtLabels:
    """Observer that writes detections as txt labels: labels/<stem>.txt, rows `class cx cy w h [confidence]`."""

    def __init__(self, folder: Path, index: LabelIndex, *, confidence: bool) -> None:
        self.folder, self.index, self.confidence = folder / "labels", index, confidence
        self.folder.mkdir(exist_ok=True)
        self.written: set[str] = set()

    def __call__(self, number: int, batch: Batch, found: Sequence[Detections]) -> None:
        """Write one file an image that shows something."""
        for position, letterbox, detections in zip(batch.indices, batch.letterboxes, found, strict=True):
            placed = detections.to_image(letterbox)
            if not len(placed):
                continue
            x1, y1, x2, y2 = (
                placed.xyxy.double() / placed.xyxy.new_tensor([letterbox.width, letterbox.height] * 2)
            ).unbind(1)
            values = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1).tolist()
            scores = placed.confidence.tolist()
            lines = [
                f"{c} " + " ".join(f"{v:.6f}" for v in (*box, *((score,) if self.confidence else ()))) + "\n"
                for c, box, score in zip(placed.class_id.tolist(), values, scores, strict=True)
            ]
            self._path(position).write_text("".join(lines), encoding="utf-8")

    def _path(self, position: int) -> Path:
        """A file of its own for every image, also where two folders hold the same name."""
        stem = self.index.path(position).stem
        name = stem if stem not in self.written else f"{stem}_{position}"
        self.written.add(name)
        return self.folder / f"{name}.txt"


def _observers(config: ValConfig, folder: Path, names: Sequence[str], index: LabelIndex) -> list[Observer]:
    observers: list[Observer] = []
    if config.plots:
        from yolo_cli.run.run_plots import ValidationPictures  # noqa: PLC0415 - matplotlib is slow to import

        observers.append(ValidationPictures(folder, names, index))
    if config.save_txt:
        observers.append(TxtLabels(folder, index, confidence=config.save_conf))
    return observers


def _write(
    config: ValConfig,
    folder: Path,
    weights: Path,
    evaluation: Evaluation,
    evaluator: Evaluator,
    split: Split,
    device: torch.device,
    reporter: Reporter,
) -> None:
    """Plots, predictions.json, the referee's numbers, results.json."""
    if config.plots:
        from yolo_cli.run.run_plots import write_curves  # noqa: PLC0415 - matplotlib is slow to import

        write_curves(folder, evaluation.metrics, evaluator.names)
    columns = evaluator.state()
    if config.save_json:
        write_predictions(folder / "predictions.json", columns)
    extra: dict[str, object] = {"weights": str(weights), "split": split.name}
    if config.pycocotools:
        reporter.info("pycocotools judges the same detections …")
        official = referee(coco_ground_truth(columns, evaluator.names), coco_predictions(columns))
        ours = evaluation.metrics.to_dict()["metrics"]
        assert isinstance(ours, dict)
        pairs = {name: (ours[name], value) for name, value in official.items()}
        for name, (mine, theirs) in pairs.items():
            reporter.info(f"{name:>14}: {_number(mine)} here, {_number(theirs)} by pycocotools")
        extra["pycocotools"] = official
    reports.write_results(folder, evaluation, device=device, splits=(split,), extra=extra)


def _sides(img: tuple[int, int]) -> str:
    return f"{img[1]}×{img[0]}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.9f}"
