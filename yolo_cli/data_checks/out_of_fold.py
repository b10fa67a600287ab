"""Predictions for images that a model was not trained on, and the suspected label errors that follow from them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from yolo_cli.data_checks.findings import SUSPECT, CheckedSplit, Finding, Item, Mark, View, count_of, listed
from yolo_cli.data_checks.label_errors import MISPLACED, MISSING, SPURIOUS, WRONG_CLASS, LabelError, find_label_errors
from yolo_cli.dataset.spec import load_spec
from yolo_cli.dataset.splits import index_split
from yolo_cli.errors import UserError
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Silent

_SENTENCES = {
    MISSING: ("object that may have no label", "objects that may have no label"),
    WRONG_CLASS: ("box that may have the wrong class", "boxes that may have the wrong class"),
    MISPLACED: ("box that may be badly placed", "boxes that may be badly placed"),
    SPURIOUS: ("box that may be on nothing", "boxes that may be on nothing"),
}


def trained_images(weights: Path) -> frozenset[str] | None:
    """The real paths of the images that a run was trained on; None where the weights are of no run that says so."""
    options = weights.parent.parent / "opt.yaml"
    try:
        if not options.is_file():
            return None
        spec = load_spec(str(read_mapping(options).get("data")))
        split = index_split(spec, "train", strict=False, workers=0, reporter=Silent(), allow_empty=True)
        return frozenset(os.path.realpath(split.index.path(i)) for i in range(len(split.index)))
    except UserError:
        return None


def choose_runs(paths: Sequence[str], trained: Sequence[frozenset[str] | None]) -> Int[np.ndarray, " n"]:
    """For each image the first run that was not trained on it; -1 where every run was, or may have been."""
    real = [os.path.realpath(path) for path in paths]
    chosen = np.full(len(real), -1)
    for run in reversed(range(len(trained))):
        images = trained[run]
        if images is not None:
            chosen[[path not in images for path in real]] = run
    return chosen


def combine(runs: Sequence[EvalData], chosen: Int[np.ndarray, " n"]) -> EvalData:
    """The predictions of the chosen run of each image, of the first run for -1. All runs have the same ground truth."""
    chosen = np.maximum(chosen, 0)
    parts = []
    for number, data in enumerate(runs):
        keep: Bool[np.ndarray, " p"] = chosen[data.predictions.image] == number
        parts.append([column[keep] for column in _columns(data)])
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    image, class_id, xywh, confidence = (column[order] for column in joined)
    first = runs[0].predictions
    predictions = replace(first, image=image, class_id=class_id, xywh=xywh, confidence=confidence)
    return replace(runs[0], predictions=predictions)


def suspect_findings(
    split: CheckedSplit, data: EvalData, rows: Int[np.ndarray, " images"], names: tuple[str, ...]
) -> list[Finding]:
    """One finding per kind of suspected error, its places ranked. `rows` are the images of `data` in the index."""
    by_kind: dict[str, list[Item]] = {}
    for error in find_label_errors(data):
        by_kind.setdefault(error.kind, []).append(_item(error, split, data, rows, names))
    return [
        Finding(kind, SUSPECT, split.name, len(items), count_of(len(items), *_SENTENCES[kind]), listed(items))
        for kind, items in by_kind.items()
    ]


def _columns(data: EvalData) -> tuple[np.ndarray, ...]:
    pred = data.predictions
    return pred.image, pred.class_id, pred.xywh, pred.confidence


def _item(
    error: LabelError, split: CheckedSplit, data: EvalData, rows: Int[np.ndarray, " images"], names: tuple[str, ...]
) -> Item:
    gt, pred = data.ground_truth, data.predictions
    marks, words = [], []
    image = int(gt.image[error.box] if error.box >= 0 else pred.image[error.prediction])
    if error.box >= 0:
        name = names[gt.class_id[error.box]]
        marks.append(Mark(tuple(gt.xywh[error.box].tolist()), "truth", name))
        words.append(f"labeled {name}")
    if error.prediction >= 0:
        name = names[pred.class_id[error.prediction]]
        marks.append(Mark(tuple(pred.xywh[error.prediction].tolist()), "wrong", name))
        words.append(f"predicted {name} ({pred.confidence[error.prediction]:.2f})")
    row = int(rows[image])
    detail = f"{', '.join(words)} at {' '.join(f'{v:.0f}' for v in marks[-1].box)}, score {error.score:.2f}"
    view = View(split.name, row, tuple(marks), zoom=True)
    return Item(os.fspath(split.index.path(row)), 0, detail, score=round(error.score, 4), views=(view,))
