"""The check at the start of training: do the model's anchors suit the boxes, and would fitted ones suit better?"""

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import learnable, score, training_sizes
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.model.architecture import Anchors
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter

ENOUGH_RECALL = 0.98  # best possible recall from which anchors are left alone


def suit_anchors(
    model: DetectionModel, index: LabelIndex, img: tuple[int, int], *, thr: float, seed: int, reporter: Reporter
) -> None:
    """Give the model fitted anchors where its own match too few boxes and the fitted ones do better; says both figures.

    Anchors that an architecture leaves to be fitted are always fitted.
    """
    sizes = learnable(training_sizes(index, img))
    own = in_scale_order(model, reporter)
    present = score(sizes, own.reshape(-1, 2), thr)
    unfitted = isinstance(model.architecture.anchors, int)
    if present.best_possible_recall >= ENOUGH_RECALL and not unfitted:
        return
    fitted = fit_anchors(sizes, own.size // 2, thr=thr, seed=seed)
    found = score(sizes, fitted, thr)
    line = (
        f"anchors: best possible recall {present.best_possible_recall:.4f}, fitness {present.fitness:.4f}; "
        f"fitted to the data {found.best_possible_recall:.4f}, {found.fitness:.4f}"
    )
    if found.fitness <= present.fitness:
        reporter.say(f"{line}: not better, left as they are")
        return
    reporter.say(f"{line}: used (--noautoanchor leaves them)")
    model.set_anchors(per_scale(fitted, len(model.strides), model.strides))


def per_scale(anchors: Float[np.ndarray, "n 2"], scales: int, strides: tuple[int, ...]) -> Anchors:
    """Anchors sorted by area, shared out evenly over the scales: small ones to small strides. n divides by scales."""
    groups = anchors.reshape(scales, -1)
    order = np.argsort(np.argsort(strides, kind="stable"), kind="stable")
    return tuple(tuple(float(f"{v:.2f}") for v in groups[i]) for i in order)


def in_scale_order(model: DetectionModel, reporter: Reporter) -> Float[np.ndarray, "s v"]:
    """The model's anchors in pixels per scale, turned round where they run against the strides (which it says)."""
    anchors = np.array(model.anchors_in_pixels(), np.float64)
    areas = anchors.reshape(len(anchors), -1, 2).prod(2).mean(1)
    if len(anchors) > 1 and (areas[-1] - areas[0]) * (model.strides[-1] - model.strides[0]) < 0:
        reporter.warn("anchors run against the strides of their scales; their order is turned round")
        anchors = anchors[::-1].copy()
        model.set_anchors(tuple(tuple(scale) for scale in anchors.tolist()))
    return anchors
