"""The check at the start of training: do the model's anchors suit the boxes, and would fitted ones suit better?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import learnable, score, training_sizes
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.model.architecture import Anchors
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter

ENOUGH_RECALL = 0.98  # best possible recall from which anchors are left alone


def check_anchors(
    model: DetectionModel, index: LabelIndex, img: tuple[int, int], *, thr: float, seed: int, reporter: Reporter
) -> None:
    """Give the model fitted anchors where its own match too few boxes and the fitted ones do better; says both figures.

    Anchors that an architecture leaves to be fitted are always fitted. A model without anchors has nothing to check.
    """
    if not model.anchors_in_pixels():
        return
    sizes = learnable(training_sizes(index, img))
    own = in_scale_order(model, reporter)
    present = score(sizes, own, thr)
    unfitted = isinstance(model.architecture.anchors, int)
    if present.best_possible_recall >= ENOUGH_RECALL and not unfitted:
        return
    fitted = fit_anchors(sizes, len(own), thr=thr, seed=seed)
    found = score(sizes, fitted, thr)
    line = (
        f"anchors: best possible recall {present.best_possible_recall:.4f}, fitness {present.fitness:.4f}; "
        f"fitted to the data {found.best_possible_recall:.4f}, {found.fitness:.4f}"
    )
    if found.fitness <= present.fitness:
        reporter.info(f"{line}: not better, left as they are")
        return
    reporter.info(f"{line}: used (--noautoanchor leaves them)")
    counts = [len(scale) // 2 for scale in model.anchors_in_pixels()]
    model.set_anchors(per_scale(fitted, counts, model.strides))


def per_scale(anchors: Float[np.ndarray, "n 2"], scales: int | Sequence[int], strides: tuple[int, ...]) -> Anchors:
    """Anchors sorted by area, shared out over the scales: small ones to small strides.

    `scales` is the number of anchors of each, or the number of scales where all have as many (n divides by it).
    """
    counts = [len(anchors) // scales] * scales if isinstance(scales, int) else scales
    shared: dict[int, tuple[float, ...]] = {}
    start = 0
    for scale in sorted(range(len(counts)), key=lambda i: strides[i]):
        group = anchors[start : start + counts[scale]]
        shared[scale] = tuple(float(f"{v:.2f}") for v in group.ravel())
        start += counts[scale]
    return tuple(shared[i] for i in range(len(counts)))


def in_scale_order(model: DetectionModel, reporter: Reporter) -> Float[np.ndarray, "n 2"]:
    """The model's anchors in pixels, turned round where they run against the strides (which it says)."""
    scales = model.anchors_in_pixels()
    areas = [float(np.mean(np.prod(np.reshape(scale, (-1, 2)), 1))) for scale in scales]
    alike = len({len(scale) for scale in scales}) == 1
    if alike and (areas[-1] - areas[0]) * (model.strides[-1] - model.strides[0]) < 0:
        reporter.warn("anchors run against the strides of their scales; their order is turned round")
        scales = scales[::-1]
        model.set_anchors(tuple(tuple(scale) for scale in scales))
    return np.array([v for scale in scales for v in scale], np.float64).reshape(-1, 2)
