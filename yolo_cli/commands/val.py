"""`yolo val`: evaluate a model on a dataset split."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from yolo_cli.batch import Batch, Detections
from yolo_cli.config import ValConfig
from yolo_cli.config.checks import resolve_tile
from yolo_cli.config.thresholds import DEFAULT
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.splits import Split, class_names, load_split, prepare_dataset
from yolo_cli.device import check_half, default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.brightness import Brightness
from yolo_cli.evaluation.coco_json import PredictionsFile, coco_ground_truth, coco_predictions, image_ids
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.evaluate import (
    DETECTING,
    EvalDataset,
    EvalOptions,
    Evaluation,
    Observer,
    OperatingPass,
    evaluate,
    observe_all,
)
from yolo_cli.evaluation.evaluator import TOO_MANY_BOXES, Evaluator
from yolo_cli.evaluation.operating_data import OperatingCollector, OperatingData
from yolo_cli.evaluation.operating_points import Criterion, ThresholdChoice, choose_thresholds, rates_at
from yolo_cli.evaluation.pycocotools_check import pycocotools_metrics
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation, save_evaluation
from yolo_cli.inference.evaluate_tiles import evaluate_tiled
from yolo_cli.inference.predictor import Predictor, Settings
from yolo_cli.inference.writers.result_formats import label_lines
from yolo_cli.progress import Reporter
from yolo_cli.report.write import try_report
from yolo_cli.run import reports
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_options
from yolo_cli.run.threshold_report import saved_line, threshold_lines
from yolo_cli.weights import checkpoint
from yolo_cli.weights.load import LoadedModel, load_model, resolve_image_size, warn_of_fixed_thresholds


def run(config: ValConfig, reporter: Reporter) -> Evaluation:
    """Evaluate with the options of `config`. Raises UserError for the user's mistakes."""
    # Set up
    device = select_device(config.device)
    check_half(config.half, device)
    path = weights_or_newest(config.weights, config.project, reporter)
    model = load_model(path, device, reporter, cfg=config.cfg, half=config.half)
    warn_of_fixed_thresholds(model, config.conf, config.iou, config.max_det, reporter)
    img = resolve_image_size(model, config.img, ValConfig().img, reporter)
    weights = model.weights
    if weights and weights.origin == "darknet" and weights.img and weights.img != img:
        reporter.info(f"{path}: its .cfg has the size {_size(weights.img)}, evaluated at {_size(img)} (--img)")
    spec = prepare_dataset(config.data, reporter)
    names = class_names(spec, single_cls=config.single_cls)
    if not config.single_cls:
        check_classes(model.names, names, path, spec.source, reporter)
    workers = default_workers(config.workers, config.batch)
    split = load_split(
        spec, config.task, single_cls=config.single_cls, strict=config.strict, workers=workers, reporter=reporter
    )
    if config.save_thresholds:
        _check_thresholds_can_be_saved(model, split, reporter)
    index = split.index
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    write_options(folder / "opt.yaml", replace(config, weights=str(path), img=img))
    reports.write_dataset_report(folder, (split,))

    # Evaluate
    brightness, operating = Brightness(len(index)), OperatingCollector(names)
    observe = _observer(config, folder, names, index, brightness)
    with PredictionsFile(folder / "predictions.json") if config.save_json else nullcontext() as predictions:
        evaluator = Evaluator(names, sink=predictions.write if predictions else None)
        evaluation = evaluate_split(
            model, split, config, img, evaluator, device=device, reporter=reporter, observe=observe, operating=operating
        )
    operating_data = operating.data()
    criterion = Criterion(config.beta, config.min_precision)
    choice = choose_thresholds(operating_data, names, criterion)

    # Report
    if config.plots:
        from yolo_cli.run.run_plots import write_curves  # noqa: PLC0415 - matplotlib is slow to import

        write_curves(folder, evaluation.metrics, names)
    data = evaluator.state() if evaluator.has_boxes else None
    results: dict[str, object] = {"weights": str(path), "split": split.name, "thresholds": choice.to_dict()}
    if config.pycocotools and data is not None:
        results["pycocotools"] = _compare_with_pycocotools(evaluation, data, names, reporter)
    reports.write_results(folder, evaluation, device=device, splits=(split,), extra=results)
    saved = _save_boxes(folder, data, split, names, brightness, reporter)
    reports.print_table(evaluation, reporter.info, verbose=config.verbose)
    images = f"the {config.task} split of {spec.source.name} ({len(index):,} images)"
    _report_thresholds(choice, operating_data, model, config, images, reporter)
    if config.plots and saved is not None:
        try_report(folder, saved, evaluation.metrics, reporter)
    reporter.info(f"results in {folder}")
    return evaluation


def _save_boxes(
    folder: Path, data: EvalData | None, split: Split, names: Sequence[str], brightness: Brightness, reporter: Reporter
) -> SavedEvaluation | None:
    """Write evaluation.npz, or warn that the boxes were not kept."""
    if data is None:
        reporter.warn(f"{TOO_MANY_BOXES}: no evaluation.npz, no report, no comparison with pycocotools")
        return None
    ids = split_ids(split.index)
    saved = SavedEvaluation.of(data, split.index, ids, names=names, split=split.name, brightness=brightness.values)
    save_evaluation(folder, saved)
    return saved


def _check_thresholds_can_be_saved(model: LoadedModel, split: Split, reporter: Reporter) -> None:
    """Raises UserError before the evaluation, which can take long."""
    if model.weights is None:
        fix = "save them in the checkpoint that it was exported from, and export it again"
        raise UserError("is an exported model", where=f"--save-thresholds, {model.path}", fix=fix)
    if model.weights.origin != "yolo_cli":
        fix = f"make a checkpoint of it first: yolo convert {model.path} NEW.pt"
        raise UserError("is no checkpoint of yolo_cli", where=f"--save-thresholds, {model.path}", fix=fix)
    if not len(split.index.boxes):
        raise UserError("no labels to choose thresholds on", where=f"--save-thresholds, {split.name} split")
    if split.name == "train":
        reporter.warn(
            "if the model was trained on these images, its confidences here are too high, and so are thresholds"
        )


def _report_thresholds(
    choice: ThresholdChoice, data: OperatingData, model: LoadedModel, config: ValConfig, images: str, reporter: Reporter
) -> None:
    """Print the chosen thresholds and how those of the checkpoint do, and save the chosen ones if asked for.

    `images` names those that they were chosen on.
    """
    for line in threshold_lines(choice, beta=config.beta, verbose=config.verbose):
        reporter.info(line)
    saved = model.runtime.metadata.thresholds
    if saved and not config.single_cls:
        criterion = Criterion(config.beta, config.min_precision)
        at_default = rates_at(data, [DEFAULT] * data.classes, criterion)
        reporter.info(saved_line(rates_at(data, saved.per_class, criterion), at_default, config.beta))
    if config.save_thresholds:
        checkpoint.save_thresholds(model.path, choice.saved(data.classes, images))
        reporter.info(f"thresholds saved in {model.path}; use them with --conf auto")


def evaluate_split(
    model: LoadedModel,
    split: Split,
    config: ValConfig,
    img: tuple[int, int],
    evaluator: Evaluator,
    *,
    device: torch.device,
    reporter: Reporter,
    observe: Observer | None = None,
    operating: OperatingCollector | None = None,
) -> Evaluation:
    """Evaluate a model on a split at the image size `img` (height, width), with the thresholds of `config`.

    `operating` collects the detections that thresholds are chosen on.
    """
    index = split.index
    rect = model.img is None  # an exported file with a fixed size takes no other shapes
    workers = default_workers(config.workers, config.batch)
    loader = val_loader(index, img=img, batch=config.batch, stride=model.stride, workers=workers, rect=rect)
    if config.tile:
        tile = resolve_tile(config.tile, img)
        settings = Settings(
            img, config.conf, config.iou, config.max_det, agnostic=config.single_cls, tile=tile, half=config.half
        )
        return evaluate_tiled(
            Predictor(model.runtime, device, settings),
            EvalDataset(loader, index, split_ids(index)),
            evaluator,
            single_cls=config.single_cls,
            tiles_per_batch=config.batch,
            reporter=reporter,
            observe=observe,
            operating=OperatingPass(operating) if operating else None,
        )
    options = EvalOptions(config.conf, config.iou, config.max_det, config.single_cls, half=config.half)
    detecting = replace(DETECTING, single_cls=config.single_cls, half=config.half)
    if model.runtime.metadata.nms is not None:  # inside the exported file: a second NMS has nothing to do
        options, detecting = replace(options, iou=1.0), replace(detecting, iou=1.0)
    return evaluate(
        model.runtime,
        EvalDataset(loader, index, split_ids(index)),
        evaluator,
        options,
        device=device,
        reporter=reporter,
        observe=observe,
        operating=OperatingPass(operating, detecting) if operating else None,
    )


def split_ids(index: LabelIndex) -> list[int]:
    """The image ids of a split, by position."""
    return image_ids(index.path(i) for i in range(len(index)))


def check_classes(
    model: Sequence[str], dataset: Sequence[str], weights: Path, source: object, reporter: Reporter
) -> None:
    """Raises UserError where model and dataset differ in the number of classes; warns where names differ."""
    if len(model) != len(dataset):
        raise UserError(
            f"has {len(model)} classes, but {source} has {len(dataset)}",
            where=weights,
            fix="give the dataset that it was trained on, or train it on this one first",
        )
    differing = [f"{a} / {b}" for a, b in zip(model, dataset, strict=True) if a.strip().lower() != b.strip().lower()]
    if differing and not all(name.isdigit() for name in model):
        reporter.warn(f"{len(differing)} class names of weights and dataset differ, e.g. {differing[0]}")


def _observer(
    config: ValConfig, folder: Path, names: Sequence[str], index: LabelIndex, brightness: Brightness
) -> Observer:
    """What measures brightness and writes images and txt files during the evaluation."""
    observers: list[Observer] = [brightness]
    if config.plots:
        from yolo_cli.run.run_plots import ValidationImages  # noqa: PLC0415 - matplotlib is slow to import

        observers.append(ValidationImages(folder, names, index))
    if config.save_txt:
        observers.append(TxtLabels(folder / "labels", index, confidence=config.save_conf))
    return observe_all(observers)


class TxtLabels:
    """Observer that saves the detections of each image as `class cx cy w h [confidence]` in folder/STEM.txt."""

    def __init__(self, folder: Path, index: LabelIndex, *, confidence: bool) -> None:
        self.folder, self.index, self.confidence = folder, index, confidence
        self.folder.mkdir(exist_ok=True)
        self.written: set[str] = set()

    def __call__(self, number: int, batch: Batch, found: Sequence[Detections]) -> None:
        """Write a file for each image with detections."""
        for position, letterbox, detections in zip(batch.indices, batch.letterboxes, found, strict=True):
            if len(detections):
                placed = detections.to_image(letterbox)
                lines = label_lines(placed, (letterbox.height, letterbox.width), confidence=self.confidence)
                self._path(position).write_text(lines, encoding="utf-8")

    def _path(self, position: int) -> Path:
        """A path that no other image has, also if two folders hold images of the same name."""
        stem = self.index.path(position).stem
        name = stem if stem not in self.written else f"{stem}_{position}"
        self.written.add(name)
        return self.folder / f"{name}.txt"


def _compare_with_pycocotools(
    evaluation: Evaluation, data: EvalData, names: Sequence[str], reporter: Reporter
) -> dict[str, float | None]:
    """Print the average precisions of both implementations; returns those of pycocotools."""
    reporter.info("evaluating with pycocotools …")
    theirs = pycocotools_metrics(coco_ground_truth(data, names), coco_predictions(data))
    ours = evaluation.metrics.to_dict()["metrics"]
    assert isinstance(ours, dict)
    for name, value in theirs.items():
        reporter.info(f"{name:>14}: {_number(ours[name])} here, {_number(value)} by pycocotools")
    return theirs


def _size(img: tuple[int, int]) -> str:
    return f"{img[1]}×{img[0]}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.9f}"
