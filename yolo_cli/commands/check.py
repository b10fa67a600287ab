"""`yolo check`: what is wrong with a dataset before training."""

import glob
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_cli.commands.val import check_classes, evaluate_split, split_ids
from yolo_cli.config import CheckConfig, ValConfig
from yolo_cli.data_checks.advice import advise
from yolo_cli.data_checks.dataset import CheckResult, check_dataset
from yolo_cli.data_checks.findings import (
    ADVICE,
    ERROR,
    EXPLANATIONS,
    SUSPECT,
    WARNING,
    CheckedSplit,
    Finding,
    Item,
    count_of,
)
from yolo_cli.data_checks.fix import CHANGES, check_target, write_fixed
from yolo_cli.data_checks.image_stats import measure_images
from yolo_cli.data_checks.out_of_fold import choose_runs, combine, suspect_findings, trained_images
from yolo_cli.data_checks.page import relative, render
from yolo_cli.data_checks.training_cost import measure_training_cost
from yolo_cli.dataset.spec import DataSpec, split_files
from yolo_cli.dataset.splits import Split, index_split, prepare_dataset
from yolo_cli.device import cores, default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.io.atomic import write_atomically
from yolo_cli.model.architecture import plan_layers, scale_anchors
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import create_run_dir, write_json
from yolo_cli.weights.load import find_weights, load_model, resolve_image_size
from yolo_cli.weights.networks import find_network

JSON_FILE, HTML_FILE = "check.json", "check.html"


def run(config: CheckConfig, reporter: Reporter) -> CheckResult:
    """Check a dataset as the options say, and print what was found. Raises UserError for the user's mistakes."""
    # Set up
    device = select_device(config.device)
    spec = prepare_dataset(config.data, reporter)
    fixed = Path(os.path.expanduser(config.fix)) if config.fix else None
    if fixed is not None:
        check_target(fixed, spec.root)
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok) if config.html else None
    splits, findings = _open_splits(spec, config, reporter)

    # Check
    if config.images:
        threads = config.workers if config.workers >= 0 else cores()
        splits = [_with_stats(split, threads, reporter) for split in splits]
    findings += check_dataset(splits, spec.names, config.img)
    if config.weights:
        findings += _label_errors(splits, spec, config, device, reporter)
    if config.advice:
        findings += _advice(splits, spec, config, device)
    result = CheckResult.of(findings)

    # Report
    content = to_dict(result, spec, splits)
    if folder is not None:
        write_json(folder / JSON_FILE, content)
        page = render(result, splits, title=spec.source.resolve().parent.name or spec.source.name, root=spec.root)
        write_atomically(folder / HTML_FILE, page.encode("utf-8", "backslashreplace"), what=HTML_FILE)
    if config.json:
        print(json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8"))
    else:
        print_table(result, spec, splits, reporter)
    if fixed is not None:
        changes = write_fixed(fixed, splits, spec.names)
        reporter.info(f"{count_of(len(changes), 'change')} listed in {fixed / CHANGES}; train on {fixed / 'data.yaml'}")
    if folder is not None:
        reporter.info(f"page with thumbnails in {folder / HTML_FILE}")
    return result


def _open_splits(spec: DataSpec, config: CheckConfig, reporter: Reporter) -> tuple[list[CheckedSplit], list[Finding]]:
    """The splits that can be opened, and findings about the others."""
    splits, findings = [], []
    workers = default_workers(config.workers, config.batch)
    for name in spec.splits:
        try:
            opened = index_split(spec, name, strict=False, workers=workers, reporter=reporter, allow_empty=True)
        except UserError as error:
            findings.append(Finding("no-images", ERROR, name, 1, str(error)))
            continue
        splits.append(CheckedSplit(name, tuple(split_files(spec, name)), opened.index, opened.files))
    if "val" not in spec.splits:
        findings.append(Finding("no-val", WARNING, "val", 1, f"{spec.source.name} has no val split"))
    return splits, findings


def _with_stats(split: CheckedSplit, threads: int, reporter: Reporter) -> CheckedSplit:
    with reporter.bar(len(split.index), f"{split.name} images") as bar:
        return replace(split, stats=measure_images(split.index, threads=threads, advance=bar.advance))


def _label_errors(
    splits: Sequence[CheckedSplit], spec: DataSpec, config: CheckConfig, device: torch.device, reporter: Reporter
) -> list[Finding]:
    """Suspected label errors of all splits, from models that were not trained on the images where there are such."""
    files = [path for name in config.weights.split(",") if name.strip() for path in _weight_files(name.strip())]
    trained = [trained_images(path) for path in files]
    for path, images in zip(files, trained, strict=True):
        if images is None:
            reporter.warn(f"{path}: it is not known which images it was trained on")
    usable = [split for split in splits if len(split.index)]
    evaluated = [_evaluate(path, usable, spec, config, device, reporter) for path in files]
    findings, seen = [], 0
    for number, split in enumerate(usable):
        ids = np.asarray(split_ids(split.index))
        data = [runs[number] for runs in evaluated]
        by_id = np.argsort(ids)
        rows = by_id[np.searchsorted(ids, data[0].image_ids, sorter=by_id)]
        chosen = choose_runs([os.fspath(split.index.path(row)) for row in rows.tolist()], trained)
        seen += int((chosen < 0).sum())
        findings += suspect_findings(split, combine(data, chosen), rows, spec.names)
    if seen:
        reporter.warn(
            f"{count_of(seen, 'image')} may have been trained on by all of the models, which hides label errors; give "
            "runs that were trained on other parts of the dataset"
        )
    return findings


def _weight_files(name: str) -> list[Path]:
    """Weights that a path, a training run or a glob of these names. Raises UserError where there are none."""
    pattern = os.path.expanduser(name)
    found = [Path(pattern)] if os.path.exists(pattern) else sorted(map(Path, glob.glob(pattern)))
    found = [path / "weights" / "best.pt" if path.is_dir() else path for path in found]
    if not found and glob.has_magic(pattern):
        raise UserError("matches nothing", where=f"--weights {name}", fix="give training runs, or weight files")
    return [find_weights(os.fspath(path)) for path in found] or [find_weights(name)]


def _evaluate(
    path: Path,
    splits: Sequence[CheckedSplit],
    spec: DataSpec,
    config: CheckConfig,
    device: torch.device,
    reporter: Reporter,
) -> list[EvalData]:
    """Predictions of a model on each split, at the image size that it was trained at unless --img says otherwise."""
    model = load_model(path, device, reporter)
    check_classes(model.names, spec.names, path, spec.source, reporter)
    default = CheckConfig().img
    trained = model.weights.img if model.weights else None
    img = resolve_image_size(model, trained if trained and config.img == default else config.img, default, reporter)
    reporter.info(f"{path}: predicts at {img[1]}×{img[0]}")
    options = ValConfig(batch=config.batch, workers=config.workers)
    found = []
    for split in splits:
        evaluator = Evaluator(spec.names, boxes_kept=math.inf)
        opened = Split(split.name, split.index, split.images)
        evaluate_split(model, opened, options, img, evaluator, device=device, reporter=reporter)
        found.append(evaluator.state())
    return found


def _advice(splits: Sequence[CheckedSplit], spec: DataSpec, config: CheckConfig, device: torch.device) -> list[Finding]:
    train = next((split for split in splits if split.name == "train" and len(split.index.boxes)), None)
    if train is None:
        return []
    architecture = find_network("s")
    planned = plan_layers(architecture)
    strides = [planned[source].stride for source in planned[-1].sources]
    anchors = np.concatenate([np.reshape(scale, (-1, 2)) for scale in scale_anchors(architecture.anchors, strides)])
    return advise(train, config.img, anchors, measure_training_cost(spec.names, config.img, device))


def to_dict(result: CheckResult, spec: DataSpec, splits: Sequence[CheckedSplit]) -> dict[str, Any]:
    """The result as it is written to check.json."""
    return {
        "data": os.fspath(spec.source),
        "splits": {
            split.name: {"image_files": split.images, "images": len(split.index), "boxes": len(split.index.boxes)}
            for split in splits
        },
        "errors": result.number(ERROR),
        "warnings": result.number(WARNING),
        "findings": [_finding_to_dict(finding) for finding in result.findings],
    }


def _finding_to_dict(finding: Finding) -> Mapping[str, Any]:
    explanation = EXPLANATIONS[finding.code]
    return {
        "code": finding.code,
        "severity": finding.severity,
        "split": finding.split,
        "count": finding.count,
        "what": finding.what,
        "why": explanation.why,
        "fix": explanation.fix,
        "items": [_item_to_dict(item) for item in finding.items],
    }


def _item_to_dict(item: Item) -> dict[str, Any]:
    values = {"file": item.file, "line": item.line, "detail": item.detail, "other": item.other, "score": item.score}
    return {name: value for name, value in values.items() if value not in ("", 0, None)}


def print_table(result: CheckResult, spec: DataSpec, splits: Sequence[CheckedSplit], reporter: Reporter) -> None:
    """Print one line per finding with its first place, and a summary."""
    for split in splits:
        images, boxes = count_of(len(split.index), "image"), count_of(len(split.index.boxes), "box", "boxes")
        ignored = split.index.ignored
        regions = f", {count_of(len(ignored.classes), 'ignore region')}" if ignored else ""
        reporter.info(f"{split.name}: {images}, {boxes}{regions}")
    for finding in result.findings:
        first = f"; first: {relative(finding.items[0], spec.root)}" if finding.items else ""
        reporter.info(f"{finding.severity:>8} {finding.split:>10}  {finding.what}{first}")
    errors, warnings = (count_of(result.number(severity), severity) for severity in (ERROR, WARNING))
    others = [
        count_of(number, what, many)
        for severity, what, many in ((SUSPECT, "list of suspected label errors", "lists of suspected label errors"),
                                     (ADVICE, "piece of advice", "pieces of advice"))
        if (number := result.number(severity))
    ]  # fmt: skip
    reporter.info(", ".join([errors, warnings, *others]))
