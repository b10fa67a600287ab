"""`yolo compare`: is one model better than another on this dataset?"""

import glob
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_cli.batch import Detections
from yolo_cli.commands.val import check_classes, evaluate_split, split_ids
from yolo_cli.config import CompareConfig, ValConfig
from yolo_cli.dataset.splits import Split, load_split, prepare_dataset
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.coco_json import read_predictions
from yolo_cli.evaluation.comparison import (
    SUMMARY,
    Bootstrap,
    Compared,
    Difference,
    Score,
    bootstrap,
    compare,
    interval_text,
    verdict,
)
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.evaluate import ground_truth
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.evaluation.saved_evaluation import FILE, load_evaluation
from yolo_cli.evaluation.weighted_ap import WeightedAP
from yolo_cli.export.formats import format_of
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import find_weights, load_model, resolve_image_size

MAIN = SUMMARY[0]  # the metric that decides


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how it came out."""

    recipes: tuple[str, ...]
    images: int
    names: tuple[str, ...]
    results: list[Compared]


def run(config: CompareConfig, reporter: Reporter) -> bool:
    """Compare as the options say; returns whether `--min-gain`, where it is given, is shown. Raises UserError."""
    # Set up
    device = select_device(config.device)
    recipes = [_members(recipe) for recipe in config.recipes]
    spec = prepare_dataset(config.data or _dataset_of(recipes), reporter)
    workers = default_workers(config.workers, config.batch)
    split = load_split(spec, config.task, single_cls=False, strict=False, workers=workers, reporter=reporter)
    if not len(split.index.boxes):
        raise UserError(f"the {config.task} split has no boxes to compare on", where=spec.source)

    # Evaluate
    scored = [
        [WeightedAP(_evaluate(path, split, spec.names, config, device, reporter), spec.nc) for path in paths]
        for paths in recipes
    ]
    with reporter.bar(config.resamples, "resamples") as bar:
        result = bootstrap(
            scored, resamples=config.resamples, seed=config.seed, threads=os.cpu_count() or 1, advance=bar.advance
        )

    # Report
    comparison = Comparison(config.recipes, result.images, spec.names, compare(result))
    if config.json:
        print(json.dumps(_to_dict(comparison, result), ensure_ascii=False))
    else:
        _print_tables(comparison, config, reporter)
    return config.min_gain is None or all(
        _is_gain_shown(other.differences[MAIN], config.min_gain) for other in comparison.results[1:]
    )


def _is_gain_shown(difference: Difference, min_gain: float) -> bool:
    """Whether the whole interval is at `min_gain` points or above; for 0 it must be above, so that equal is no gain."""
    low = 100 * difference.low
    return low > 0 if min_gain == 0 else low >= min_gain


def _members(recipe: str) -> list[Path]:
    """The files of a recipe: weights or predictions, those of a run, or all that a glob matches.

    Of a training run that is the best weights, of an evaluation its saved predictions.
    """
    if not recipe.strip():
        raise UserError("a model has no name", where="yolo compare", fix="name runs, weights or predictions.json")
    pattern = os.path.expanduser(recipe)
    patterns = _without_braces(pattern)
    found = [Path(pattern)] if Path(pattern).exists() else sorted(Path(p) for one in patterns for p in glob.glob(one))
    files = [_file_of_run(path) if path.is_dir() else path for path in found]
    if not files and (len(patterns) > 1 or glob.has_magic(pattern)):
        raise UserError("matches nothing", where=recipe, fix="give a training run, weights, or predictions.json")
    return files or [find_weights(recipe, exported=True)]


def _file_of_run(folder: Path) -> Path:
    """The file to compare of a folder: a run, or an exported model. Raises UserError for any other folder."""
    for file in (folder / "weights" / "best.pt", folder / FILE):
        if file.exists():
            return file
    if format_of(folder):  # an exported model that is a folder
        return folder
    raise UserError(f"has no weights/best.pt and no {FILE}", where=folder, fix="give a run of yolo train or yolo val")


def _without_braces(pattern: str) -> list[str]:
    """Patterns with the alternatives of the first braces written out: runs/exp{,-seed*} names the runs of a group."""
    match = re.fullmatch(r"(.*?)\{([^{}]*,[^{}]*)\}(.*)", pattern)
    return [match[1] + one + match[3] for one in match[2].split(",")] if match else [pattern]


def _dataset_of(recipes: Sequence[Sequence[Path]]) -> str:
    """The dataset of the first run among the recipes."""
    for path in (path for paths in recipes for path in paths):
        options = (path.parent.parent if path.parent.name == "weights" else path.parent) / "opt.yaml"
        if options.is_file() and (data := read_mapping(options).get("data")):
            return str(data)
    raise UserError("which dataset?", where="yolo compare", fix="give --data DATA; none of the models is of a run here")


def _evaluate(
    path: Path, split: Split, names: Sequence[str], config: CompareConfig, device: torch.device, reporter: Reporter
) -> EvalData:
    """Predictions of a file on the split, with its ground truth."""
    if path.suffix == ".json":
        return read_with_ground_truth(path, split, len(names), reporter)
    if path.name == FILE:
        return _saved(path, split, len(names))
    model = load_model(path, device, reporter)
    check_classes(model.names, names, path, split.name, reporter)
    default = CompareConfig(("", "")).img
    trained = model.weights.img if model.weights else None
    img = resolve_image_size(model, trained if trained and config.img == default else config.img, default, reporter)
    reporter.info(f"{path}: evaluated at {img[1]}×{img[0]}")
    evaluator = Evaluator(names, boxes_kept=math.inf)
    options = ValConfig(batch=config.batch, iou=config.iou, max_det=config.max_det, workers=config.workers)
    evaluate_split(model, split, options, img, evaluator, device=device, reporter=reporter)
    return evaluator.state()


def _saved(path: Path, split: Split, classes: int) -> EvalData:
    """The saved evaluation of this split. Raises UserError for one of other images or labels."""
    saved = load_evaluation(path.parent)
    same_images = np.array_equal(saved.data.image_ids, np.asarray(split_ids(split.index)))
    if saved.fingerprint != split.index.fingerprint or len(saved.names) != classes or not same_images:
        raise UserError(
            f"was evaluated on other images, labels or classes than {split.name}", where=path, fix="evaluate it again"
        )
    return saved.data


def read_with_ground_truth(path: Path, split: Split, classes: int, reporter: Reporter | None = None) -> EvalData:
    """COCO predictions of a split, with its ground truth. Raises UserError for a file that does not fit the split."""
    data = _ground_truth(split, classes)
    return replace(data, predictions=read_predictions(path, data.image_ids.tolist(), classes, reporter))


def _ground_truth(split: Split, classes: int) -> EvalData:
    """A split without predictions."""
    index, ids = split.index, split_ids(split.index)
    truth = [ground_truth(index, i, classes) for i in range(len(index))]
    sizes = [(int(height), int(width)) for height, width in index.sizes]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return EvalData.join(
        [
            EvalData.from_images(
                ids, sizes, [boxes for boxes, _ in truth], [nothing] * len(ids), [crowd for _, crowd in truth]
            )
        ]
    )


def _print_tables(comparison: Comparison, config: CompareConfig, reporter: Reporter) -> None:
    names, others = _labels(comparison.recipes), comparison.results[1:]
    base = names[0]
    reporter.info(f"{'metric':>14}  " + "  ".join(f"{name:>20}" for name in names))
    for metric in SUMMARY:
        reporter.info(f"{metric:>14}  " + "  ".join(f"{_score(r.scores[metric]):>20}" for r in comparison.results))
    for name, other in zip(names[1:], others, strict=True):
        reporter.info(f"{name} minus {base}, points of AP with 95% intervals:")
        for metric in SUMMARY:
            reporter.info(f"{metric:>20}  {interval_text(other.differences[metric])}")
        if config.verbose:
            for class_name, of_class in zip(comparison.names, other.class_differences, strict=True):
                if not math.isnan(of_class.value):  # the split has boxes of the class
                    reporter.info(f"{class_name[:20]:>20}  {interval_text(of_class)}")
    for name, other in zip(names[1:], others, strict=True):
        reporter.info(verdict(name, base, other.differences[MAIN], comparison.images))


def _labels(recipes: Sequence[str]) -> list[str]:
    """What recipes are called: short, unless two would be called alike."""
    short = [_short(recipe) for recipe in recipes]
    return [recipe if short.count(name) > 1 else name for recipe, name in zip(recipes, short, strict=True)]


def _short(recipe: str) -> str:
    """A recipe as people call it: the run's or the file's name."""
    path = Path(recipe)
    of_run = path.parent.name == "weights" and path.name in ("best.pt", "last.pt") and len(path.parts) > 2
    return path.parents[1].name if of_run else path.name or recipe


def _score(score: Score) -> str:
    if math.isnan(score.value):
        return "unknown"
    return f"{100 * score.value:.1f} ± {100 * score.standard_error:.1f}".removesuffix(" ± nan")


def _to_dict(comparison: Comparison, result: Bootstrap) -> dict[str, Any]:
    """All figures as fractions, as in results.json; null for what is unknown."""
    names = [
        f"{name} (class {i})" if comparison.names.count(name) > 1 else name for i, name in enumerate(comparison.names)
    ]
    return {
        "images": comparison.images,
        "resamples": result.samples.shape[1],
        "recipes": [
            {
                "name": name,
                "scores": {metric: _known(asdict(score)) for metric, score in each.scores.items()},
                "differences": {metric: _known(asdict(d)) for metric, d in each.differences.items()},
                "classes": {
                    class_name: {
                        "score": _known(asdict(each.class_scores[i])),
                        **({"difference": _known(asdict(d))} if (d := _at(each.class_differences, i)) else {}),
                    }
                    for i, class_name in enumerate(names)
                },
            }
            for name, each in zip(comparison.recipes, comparison.results, strict=True)
        ],
    }


def _at(differences: Sequence[Difference], i: int) -> Difference | None:
    return differences[i] if differences else None


def _known(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
