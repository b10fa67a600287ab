"""The proof of an export: the written file, run by its own runtime on real images, against PyTorch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.errors import UserError
from yolo_cli.export.metadata import Suppression
from yolo_cli.export.runtime import Runtime

TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2}  # 8 bits are reported, not judged
ENOUGH, LOWER = 10, (0.1, 0.01, 0.001)  # detections that a proof wants to see, and how low it goes for them
BEST = 100  # rows of a model that is not even as sure as that
SAME = 0.9  # overlap from which two detections of a class show the same thing


@dataclass(slots=True)
class ParityReport:
    """How far a file's detections are from PyTorch's, at worst; boxes as fractions of the canvas's longer side."""

    images: int = 0
    detections: int = 0  # PyTorch's
    matched: int = 0
    conf: float = 0.0  # at which detections were compared
    only_pytorch: int = 0
    only_file: int = 0
    borderline: int = 0  # of the unmatched: within the tolerance of a threshold, where rounding decides
    box_difference: float = 0.0  # of matched detections
    score_difference: float = 0.0
    row_box_difference: float = 0.0  # of all rows above the confidence, before suppression
    row_score_difference: float = 0.0
    worst: str = ""  # where the largest difference is
    tolerance: float | None = None
    where: list[str] = field(default_factory=list)  # what lies beyond the tolerance

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare: a model that finds nothing proves nothing."""
        return bool(self.detections or self.only_file)

    @property
    def passed(self) -> bool:
        """Whether everything lies within the tolerance."""
        return not self.where

    def to_mapping(self) -> dict[str, Any]:
        """For report.json."""
        return {**asdict(self), "compared": self.compared, "passed": self.passed}


def check_parity(
    file: Runtime,
    torch_model: Runtime,
    batches: Iterable[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]],
    thresholds: Suppression,
) -> ParityReport:
    """Run both over batches of named images, compare, and say what lies beyond the tolerance."""
    about = file.metadata
    kind = "int8" if about.int8 else "fp16" if about.half else "fp32"
    proof = ParityReport(tolerance=TOLERANCE.get(kind), conf=thresholds.conf)
    inside = about.nms is not None
    with torch.inference_mode():
        for names, images in batches:
            side = max(images.shape[2:])
            wanted = torch_model.rows(images)
            try:
                given = file.rows(images)
            except UserError as error:
                proof.where.append(f"{names[0]}: {error.what}")
                continue
            for name, theirs, ours in zip(names, wanted, given, strict=True):
                if not inside:
                    _compare_rows(proof, name, theirs, ours.to(theirs.device), thresholds.conf, side)
                expected = _detections(theirs, thresholds, thresholds.iou)
                found = _detections(ours.to(theirs.device), thresholds, 1.0 if inside else thresholds.iou)
                _compare_detections(proof, name, expected, found, thresholds, side)
                proof.images += 1
    return proof


def telling_confidence(
    torch_model: Runtime, batches: Iterable[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]], thresholds: Suppression
) -> float:
    """The confidence to compare at: that of `thresholds`, or a lower one where it leaves hardly anything to compare."""
    with torch.inference_mode():
        every = [rows for _, images in batches for rows in torch_model.rows(images)]
    for conf in (thresholds.conf, *(conf for conf in LOWER if conf < thresholds.conf)):
        if sum(len(_detections(rows, replace(thresholds, conf=conf), thresholds.iou)) for rows in every) >= ENOUGH:
            return conf
    # A model that has hardly learnt anything: boxes of its best rows can be compared all the same.
    best = torch.cat([(rows[:, 5:] * rows[:, 4:5]).amax(1) for rows in every]).double()
    sound = best[best.isfinite()]
    return float(sound.topk(min(BEST, len(sound))).values[-1]) * 0.999 if len(sound) else thresholds.conf


def _detections(rows: Tensor, t: Suppression, iou: float) -> Detections:
    (found,) = non_max_suppression([rows], conf=t.conf, iou=iou, max_det=t.max_det, multi_label=False)
    return found


def _compare_rows(proof: ParityReport, name: str, theirs: Tensor, ours: Tensor, conf: float, side: int) -> None:
    if theirs.shape != ours.shape:
        proof.where.append(f"{name}: output of shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
        return
    scores = (theirs[:, 5:] * theirs[:, 4:5], ours[:, 5:] * ours[:, 4:5])
    # Boxes of rows that no threshold would let through mean nothing.
    likely = (scores[0].amax(1) > conf) | (scores[1].amax(1) > conf)
    box = _largest((theirs[likely, :4] - ours[likely, :4]).abs() / side)
    score = _largest((scores[0] - scores[1]).abs())
    _note(proof, name, "row_box_difference", box)
    _note(proof, name, "row_score_difference", score)


def _compare_detections(
    proof: ParityReport, name: str, expected: Detections, found: Detections, t: Suppression, side: int
) -> None:
    """Match the same things by class and overlap, most confident first."""
    overlap = pairwise_iou(expected.xyxy.double(), found.xyxy.double())
    overlap[expected.class_id[:, None] != found.class_id[None]] = 0
    proof.detections += len(expected)
    free = torch.ones(len(found), dtype=torch.bool, device=overlap.device)
    lonely: list[float] = []
    for i in range(len(expected)):
        candidates = overlap[i] * free
        j = int(candidates.argmax()) if len(found) else -1
        if j < 0 or candidates[j] < SAME:
            lonely.append(float(expected.confidence[i]))
            continue
        free[j] = False
        proof.matched += 1
        _note(proof, name, "box_difference", float((expected.xyxy[i] - found.xyxy[j]).abs().max()) / side)
        _note(proof, name, "score_difference", abs(float(expected.confidence[i] - found.confidence[j])))
    extra = [float(c) for c in found.confidence[free]]
    proof.only_pytorch += len(lonely)
    proof.only_file += len(extra)
    if proof.tolerance is None:
        return
    near = [c for c in (*lonely, *extra) if c - t.conf <= proof.tolerance]
    proof.borderline += len(near)
    if len(near) < len(lonely) + len(extra):
        proof.where.append(
            f"{name}: {len(lonely)} detections of PyTorch's not in the file's, {len(extra)} the other way"
        )


def _note(proof: ParityReport, image: str, what: str, value: float) -> None:
    """Keep the largest, and where it is; say what lies beyond the tolerance."""
    if value > getattr(proof, what) or math.isnan(value):
        setattr(proof, what, value)
        proof.worst = f"{image}: {what.replace('_', ' ')} {value:.2g}"
    if proof.tolerance is not None and not value <= proof.tolerance:
        proof.where.append(f"{image}: {what.replace('_', ' ')} {value:.3g} beyond {proof.tolerance:g}")


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
