"""`yolo check`: what is wrong with a dataset before training."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from yolo_cli.config import CheckConfig
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
from yolo_cli.data_checks.image_stats import measure_images
from yolo_cli.data_checks.page import relative, render
from yolo_cli.data_checks.training_cost import measure_training_cost
from yolo_cli.dataset.spec import DataSpec, split_files
from yolo_cli.dataset.splits import index_split, prepare_dataset
from yolo_cli.device import cores, default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.model.architecture import plan_layers, scale_anchors
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import create_run_dir, write_json
from yolo_cli.weights.networks import find_network

JSON_FILE, HTML_FILE = "check.json", "check.html"


def run(config: CheckConfig, reporter: Reporter) -> CheckResult:
    """Check a dataset as the options say, and print what was found. Raises UserError for the user's mistakes."""
    # Set up
    device = select_device(config.device)
    spec = prepare_dataset(config.data, reporter)
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok) if config.html else None
    splits, findings = _open_splits(spec, config, reporter)

    # Check
    if config.images:
        threads = config.workers if config.workers >= 0 else cores()
        splits = [_with_stats(split, threads, reporter) for split in splits]
    findings += check_dataset(splits, spec.names, config.img)
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
        reporter.info(f"{split.name}: {images}, {boxes}")
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
