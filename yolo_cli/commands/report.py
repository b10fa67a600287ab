"""`yolo report`: an HTML report of a run."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from yolo_cli.commands.val import check_classes, evaluate_split, split_ids
from yolo_cli.config import ReportConfig, TrainConfig, ValConfig
from yolo_cli.dataset.splits import class_names, load_split, prepare_dataset
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.brightness import Brightness
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.evaluation.saved_evaluation import FILE, SavedEvaluation, load_evaluation, save_evaluation
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter
from yolo_cli.report.write import write_report
from yolo_cli.weights.load import load_model, resolve_image_size


def run(config: ReportConfig, reporter: Reporter) -> Path:
    """Write the report; returns its path. Raises UserError for the user's mistakes."""
    # Set up
    folder = _run_folder(config.run, "yolo report")
    base_folder = _run_folder(config.base, "--base") if config.base else None
    output = Path(os.path.expanduser(config.output)) if config.output else None
    if output and (output.is_dir() or not output.parent.is_dir()):
        raise UserError("is no file that can be written", where=f"--output {config.output}", fix="give FILE.html")
    if output and output.suffix.lower() not in (".html", ".htm"):
        raise UserError("is no name of an HTML file", where=f"--output {config.output}", fix="give FILE.html")

    # Evaluate
    saved = _evaluation(folder, config, reporter)
    base = _evaluation(base_folder, config, reporter) if base_folder else None

    # Report
    path = write_report(
        folder,
        saved,
        output=output,
        base=base,
        base_name=base_folder.resolve().name if base_folder else "",
        resamples=config.resamples,
        seed=config.seed,
        reporter=reporter,
    )
    reporter.info(f"report in {path}")
    return path


def _run_folder(name: str, where: str) -> Path:
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        raise UserError("no such run folder", where=f"{where} {name}", fix="give a folder such as runs/exp")
    return folder


def _evaluation(folder: Path, config: ReportConfig, reporter: Reporter) -> SavedEvaluation:
    """The saved evaluation of a run; without one, its weights are evaluated again and the result is saved."""
    if (folder / FILE).exists():
        return load_evaluation(folder)
    options = folder / "opt.yaml"
    recorded = read_mapping(options) if options.is_file() else {}
    best = folder / "weights" / "best.pt"
    trained = best.is_file()
    weights = best if trained else Path(str(recorded.get("weights") or ""))
    if not recorded.get("data") or not weights.is_file():
        raise UserError(
            f"has no {FILE}, and no weights that could be evaluated again",
            where=folder,
            fix="run yolo val, and give its run folder",
        )
    reporter.info(f"{folder} has no {FILE}: evaluating {weights} again")
    saved = _evaluate_again(weights, _val_config(recorded, config, options, trained=trained), reporter)
    try:
        save_evaluation(folder, saved)
    except UserError as error:  # it only saves time at the next report
        reporter.warn(str(error))
    return saved


def _val_config(recorded: Mapping[str, Any], config: ReportConfig, options: Path, *, trained: bool) -> ValConfig:
    """The options of the evaluation that the run made, on this device. A training evaluates with the defaults."""
    kept = ("data", "img", "tile", "single_cls") if trained else [field.name for field in fields(ValConfig)]
    values = {name: recorded[name] for name in kept if name in recorded}
    values["img"] = tuple(values.get("img") or TrainConfig().img)
    try:
        return replace(ValConfig(**values), batch=config.batch, device=config.device, workers=config.workers)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"is no settings of a run ({error})", where=options, fix="run yolo val again") from None


def _evaluate_again(weights: Path, config: ValConfig, reporter: Reporter) -> SavedEvaluation:
    device = select_device(config.device)
    model = load_model(weights, device, reporter, cfg=config.cfg, half=config.half)
    img = resolve_image_size(model, config.img, ValConfig().img, reporter)
    spec = prepare_dataset(config.data, reporter)
    names = class_names(spec, single_cls=config.single_cls)
    if not config.single_cls:
        check_classes(model.names, names, weights, spec.source, reporter)
    workers = default_workers(config.workers, config.batch)
    split = load_split(
        spec, config.task, single_cls=config.single_cls, strict=config.strict, workers=workers, reporter=reporter
    )
    evaluator, brightness = Evaluator(names, boxes_kept=math.inf), Brightness(len(split.index))
    evaluate_split(model, split, config, img, evaluator, device=device, reporter=reporter, observe=brightness)
    return SavedEvaluation.of(
        evaluator.state(),
        split.index,
        split_ids(split.index),
        names=names,
        split=split.name,
        brightness=brightness.values,
    )
