"""What a run folder has besides its evaluation: settings, versions, problems of the dataset, curves of the training."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping


@dataclass(frozen=True)
class RunFiles:
    """The content of the files; empty for a file that is missing or damaged."""

    folder: Path
    options: Mapping[str, Any]  # opt.yaml
    hyp: Mapping[str, Any]  # hyp.yaml
    results: Mapping[str, Any]  # results.json
    dataset: Mapping[str, Any]  # dataset_report.json
    epochs: Mapping[str, list[float]]  # results.csv by column; nan for an empty cell


def read_run(folder: Path) -> RunFiles:
    """Read a run folder. A file that cannot be read is no error: a report is made of what there is."""
    return RunFiles(
        folder,
        _yaml(folder / "opt.yaml"),
        _yaml(folder / "hyp.yaml"),
        _json(folder / "results.json"),
        _json(folder / "dataset_report.json"),
        _csv(folder / "results.csv"),
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        return read_mapping(path) if path.is_file() else {}
    except UserError:
        return {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _csv(path: Path) -> Mapping[str, list[float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return {}
    columns = rows[0].keys() if rows else ()
    return {name: [_number(row.get(name)) for row in rows] for name in columns if name}


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return math.nan
