"""Everything that a report says about an evaluation, as numbers; no image is read."""

import math
import os
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from yolo_cli.errors import UserError
from yolo_cli.evaluation.comparison import Compared, bootstrap, compare
from yolo_cli.evaluation.eval_data import EvalData, GroundTruth, Predictions
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.evaluation.result import Metrics
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation
from yolo_cli.evaluation.weighted_ap import WeightedAP
from yolo_cli.progress import Reporter
from yolo_cli.report.calibration import Calibration, calibrate
from yolo_cli.report.confusions import Confusion, find_confusions
from yolo_cli.report.label_suspects import LabelSuspects, find_suspects
from yolo_cli.report.slices import Slice, find_slices
from yolo_cli.report.threshold_scores import ThresholdErrors, threshold_errors
from yolo_cli.report.tide import ERRORS, MISSED, Errors, find_errors, gains

FALLBACK_THRESHOLD = 0.25  # where nothing is found, so that no confidence is the best
MAX_CONFUSIONS = 20


@dataclass(frozen=True)
class Mistakes:
    """Wrong predictions at the threshold and missed boxes: one row each."""

    image: Int[np.ndarray, " k"]
    class_id: Int[np.ndarray, " k"]  # of the prediction, or of the missed box
    kind: Int[np.ndarray, " k"]  # index of ERRORS


@dataclass(frozen=True)
class Findings:
    """The analysis of an evaluation at one confidence threshold.

    `confident` and `found` are which predictions reach the threshold and which boxes a correct one of these matches.
    """

    saved: SavedEvaluation
    metrics: Metrics
    threshold: float
    threshold_errors: ThresholdErrors
    errors: Errors
    confident: Bool[np.ndarray, " n"]
    found: Bool[np.ndarray, " m"]
    missed: Bool[np.ndarray, " m"]
    gains: dict[str, float]
    mistakes: Mistakes
    slices: list[Slice]
    calibration: Calibration
    suspects: LabelSuspects
    confusions: list[Confusion]
    scores: Compared  # of the run, with its differences to the base where there is one
    base: Compared | None


def analyze(
    saved: SavedEvaluation,
    base: SavedEvaluation | None,
    *,
    base_name: str = "",
    metrics: Metrics | None = None,
    resamples: int,
    seed: int = 0,
    reporter: Reporter,
) -> Findings:
    """Analyze an evaluation, and compare it with that of a base on the same images.

    `metrics` are those of the evaluation, if they are known. Raises UserError where the base has other images.
    """
    data, classes = saved.data, len(saved.names)
    metrics = metrics or _metrics(saved)
    threshold = metrics.best_confidence if metrics.f1 > 0 else FALLBACK_THRESHOLD
    errors = find_errors(data, classes)
    confident = data.predictions.confidence >= threshold
    missed = errors.missed(data, confident)
    datas = [data] if base is None else [_same_order(base, saved, base_name), data]
    with reporter.bar(resamples, "resamples") as bar:
        recipes = [[WeightedAP(each, classes)] for each in datas]
        samples = bootstrap(recipes, resamples=resamples, seed=seed, threads=os.cpu_count() or 1, advance=bar.advance)
    compared = compare(samples)
    return Findings(
        saved=saved,
        metrics=metrics,
        threshold=threshold,
        threshold_errors=threshold_errors(data, errors, threshold, classes, resamples=resamples, seed=seed),
        errors=errors,
        confident=confident,
        found=errors.found(len(missed), confident),
        missed=missed,
        gains=gains(data, errors, classes),
        mistakes=_mistakes(data, errors, confident, missed),
        slices=find_slices(data, errors, threshold, saved.brightness),
        calibration=calibrate(data.predictions.confidence, errors, threshold),
        suspects=find_suspects(data, errors, threshold),
        confusions=find_confusions(data, classes, threshold, MAX_CONFUSIONS),
        scores=compared[-1],
        base=compared[0] if base else None,
    )


def _metrics(saved: SavedEvaluation) -> Metrics:
    evaluator = Evaluator(saved.names)
    evaluator.merge(saved.data)
    return evaluator.compute()


def _mistakes(
    data: EvalData, errors: Errors, confident: Bool[np.ndarray, " n"], missed: Bool[np.ndarray, " m"]
) -> Mistakes:
    gt, pred = data.ground_truth, data.predictions
    wrong = confident & (errors.kind >= 0)
    return Mistakes(
        np.concatenate([pred.image[wrong], gt.image[missed]]),
        np.concatenate([pred.class_id[wrong], gt.class_id[missed]]),
        np.concatenate([errors.kind[wrong], np.full(int(missed.sum()), MISSED)]),
    )


def class_counts(mistakes: Mistakes, classes: int) -> Int[np.ndarray, "classes kinds"]:
    """Mistakes by class and type."""
    kinds = len(ERRORS)
    return np.bincount(mistakes.class_id * kinds + mistakes.kind, minlength=classes * kinds).reshape(classes, kinds)


def _same_order(base: SavedEvaluation, saved: SavedEvaluation, base_name: str) -> EvalData:
    """The base's data with its images in the order of `saved`. Raises UserError where the images are not the same."""
    if base.fingerprint != saved.fingerprint or len(base.names) != len(saved.names):
        raise UserError(
            "was evaluated on other images, labels or classes than the run",
            where=f"--base {base_name}",
            fix="evaluate both alike",
        )
    row = np.empty_like(saved.position)
    row[saved.position] = np.arange(len(row))
    moved = row[base.position]  # for each image of the base, its row in `saved`
    gt, pred = base.data.ground_truth, base.data.predictions
    by_gt, by_pred = (np.argsort(moved[of.image], kind="stable") for of in (gt, pred))
    return replace(
        saved.data,
        ground_truth=GroundTruth(moved[gt.image][by_gt], gt.class_id[by_gt], gt.xywh[by_gt], gt.crowd[by_gt]),
        predictions=Predictions(
            moved[pred.image][by_pred], pred.class_id[by_pred], pred.xywh[by_pred], pred.confidence[by_pred]
        ),
    )


@dataclass(frozen=True, slots=True)
class BestF1:
    """The confidence at which a class has its highest F1 at IoU 0.5, with precision and recall there."""

    confidence: float
    f1: float
    precision: float
    recall: float


def best_f1(metrics: Metrics) -> dict[int, BestF1]:
    """By class, of the classes with ground truth; nan for a class of which nothing is found."""
    curves, result = metrics.curves, {}
    for row, class_id in enumerate(curves.class_ids.tolist()):
        at = int(curves.f1[row].argmax())
        if curves.f1[row, at] > 0:
            values = (curves.confidence[at], curves.f1[row, at], curves.precision[row, at], curves.recall[row, at])
        else:
            values = (math.nan, 0.0, math.nan, 0.0)
        result[class_id] = BestF1(*map(float, values))
    return result
