"""Autoanchor: the check of the model's anchors before training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import drop_tiny, score, training_sizes
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.model.architecture import Anchors
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter

MIN_RECALL = 0.98  # best possible recall below which anchors are fitted


def check_anchors(
    model: DetectionModel, index: LabelIndex, img: tuple[int, int], *, thr: float, seed: int, reporter: Reporter
) -> None:
    """Replace the model's anchors by fitted ones if they match too few boxes, and if the fitted ones are better.

    If the architecture has only a number of anchors, they are always fitted. A model without anchors is not changed.

    Args:
        model: is changed in place.
        index: the training split.
        img: height and width of the training images.
        thr: threshold of the side ratio.
        seed: of the fit.
        reporter: gets the recall and fitness of both.
    """
    if not model.anchors_in_pixels():
        return
    sizes = drop_tiny(training_sizes(index, img))
    current = sort_by_scale(model, reporter)
    current_score = score(sizes, current, thr)
    unfitted = isinstance(model.architecture.anchors, int)
    if current_score.best_possible_recall >= MIN_RECALL and not unfitted:
        return
    fitted = fit_anchors(sizes, len(current), thr=thr, seed=seed)
    fitted_score = score(sizes, fitted, thr)
    line = (
        f"anchors: best possible recall {current_score.best_possible_recall:.4f}, fitness {current_score.fitness:.4f}; "
        f"fitted to the dataset {fitted_score.best_possible_recall:.4f}, {fitted_score.fitness:.4f}"
    )
    if fitted_score.fitness <= current_score.fitness:
        reporter.info(f"{line}: not better, anchors are kept")
        return
    reporter.info(f"{line}: fitted anchors are used (--noautoanchor keeps the model's)")
    counts = [len(scale) // 2 for scale in model.anchors_in_pixels()]
    model.set_anchors(per_scale(fitted, counts, model.strides))


def per_scale(anchors: Float[np.ndarray, "n 2"], scales: int | Sequence[int], strides: tuple[int, ...]) -> Anchors:
    """Divide anchors, sorted by area, among the scales: the smallest to the smallest stride.

    `scales` is the number of anchors of each scale, or the number of scales if all have the same number of anchors.
    """
    counts = [len(anchors) // scales] * scales if isinstance(scales, int) else scales
    groups: dict[int, tuple[float, ...]] = {}
    start = 0
    for scale in sorted(range(len(counts)), key=lambda i: strides[i]):
        group = anchors[start : start + counts[scale]]
        groups[scale] = tuple(float(f"{v:.2f}") for v in group.ravel())
        start += counts[scale]
    return tuple(groups[i] for i in range(len(counts)))


def sort_by_scale(model: DetectionModel, reporter: Reporter) -> Float[np.ndarray, "n 2"]:
    """The model's anchors in pixels. If larger anchors are at smaller strides, their order is reversed in the model."""
    scales = model.anchors_in_pixels()
    areas = [float(np.mean(np.prod(np.reshape(scale, (-1, 2)), 1))) for scale in scales]
    same_count = len({len(scale) for scale in scales}) == 1
    if same_count and (areas[-1] - areas[0]) * (model.strides[-1] - model.strides[0]) < 0:
        reporter.warn("anchors are larger at smaller strides; their order is reversed")
        scales = scales[::-1]
        model.set_anchors(tuple(tuple(scale) for scale in scales))
    return np.array([v for scale in scales for v in scale], np.float64).reshape(-1, 2)
