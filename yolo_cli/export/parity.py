"""The parity check of an export: the detections of the written file, in its own runtime, against PyTorch's."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.config.thresholds import Conf, lowest
from yolo_cli.errors import UserError
from yolo_cli.export.metadata import Metadata, NMSSettings
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.samples import SampleImages

TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2}  # INT8 has none: its differences are only reported
MIN_DETECTIONS = 10  # for a meaningful comparison; where there are fewer, these confidences are tried:
LOWER_CONFIDENCES = (0.1, 0.01, 0.001)
TOP_PREDICTIONS = 100  # compared where the model has no such confidences either
MIN_CONFIDENCE = 0.001  # below it, no difference of scores can exceed the tolerance
MATCH_IOU = 0.9  # from this IoU on, two detections of a class show the same object
IMAGES_OF_SMALLER_SIZE = 4  # for a dynamic file


@dataclass(slots=True)
class ParityReport:
    """The largest differences between a file and PyTorch; box differences are fractions of the image's longer side."""

    tolerance: float | None  # None where differences are only reported
    conf: float  # confidence threshold of the compared detections; the lowest one, if they are per class
    images: int = 0
    detections: int = 0  # PyTorch's
    matched: int = 0
    only_pytorch: int = 0
    only_file: int = 0
    borderline: int = 0  # of the unmatched ones: within the tolerance of the threshold, where rounding decides
    box_difference: float = 0.0  # of matched detections
    score_difference: float = 0.0
    row_box_difference: float = 0.0  # of all predictions above the threshold, before NMS
    row_score_difference: float = 0.0
    worst: str = ""  # where the largest difference is
    violations: list[str] = field(default_factory=list)  # differences beyond the tolerance

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare."""
        return bool(self.detections or self.only_file)

    @property
    def passed(self) -> bool:
        """Whether all differences are within the tolerance."""
        return not self.violations

    def to_mapping(self) -> dict[str, Any]:
        """For report.json."""
        values = asdict(self)
        values["where"] = values.pop("violations")
        return {**values, "compared": self.compared, "passed": self.passed}

    def summary(self) -> list[str]:
        """Lines for the user."""
        counts = (
            f"{self.matched} of {self.detections} detections on {self.images} images match at confidence {self.conf:g}"
        )
        unmatched = self.only_pytorch + self.only_file
        counts += f", {unmatched} have no match ({self.borderline} at the threshold)" if unmatched else ""
        limit = f"tolerance {self.tolerance:g}" if self.tolerance is not None else "no tolerance for INT8"
        differences = f"box {self.box_difference:.1e} of the side, score {self.score_difference:.1e}"
        lines = [f"{counts}; largest difference: {differences}; {limit}"]
        if self.row_score_difference or self.row_box_difference:
            lines.append(f"before NMS: box {self.row_box_difference:.1e}, score {self.row_score_difference:.1e}")
        if self.tolerance is not None and (self.compared or not self.passed):
            lines.append("same as PyTorch" if self.passed else "DIFFERS from PyTorch")
        return lines

    def warnings(self, *, with_data: bool) -> list[str]:
        """Lines that the user should not miss. `with_data`: whether the images came from `--data`."""
        lines = []
        if self.passed and not self.compared:
            fix = "lower --conf" if with_data else "give --data with objects of its classes"
            lines.append(f"the check has little value, because neither PyTorch nor the file detects anything; {fix}")
        elif self.conf < MIN_CONFIDENCE:
            lines.append("only boxes are checked, because all confidences are close to 0; train the model longer")
        return lines + self.violations[:5]

    def record(self, image: str, name: str, value: float) -> None:
        """Update the largest difference of that name, and list it where it is beyond the tolerance."""
        if value > getattr(self, name) or math.isnan(value):
            setattr(self, name, value)
            self.worst = f"{image}: {name.replace('_', ' ')} {value:.2g}"
        if self.tolerance is not None and not value <= self.tolerance:
            self.violations.append(f"{image}: {name.replace('_', ' ')} {value:.3g}, tolerance {self.tolerance:g}")


def check_parity(
    file: Runtime, reference: Runtime, samples: SampleImages, thresholds: NMSSettings, device: torch.device
) -> ParityReport:
    """Compare the predictions and detections of an exported file with those of `reference`, on `samples`.

    The confidence threshold is lowered where the model detects too little at `thresholds`, unless NMS is in the file.
    """
    metadata = file.metadata
    has_nms = metadata.nms is not None
    tolerance = None if metadata.int8 else TOLERANCES["fp16" if metadata.half else "fp32"]
    with torch.inference_mode():
        if not has_nms:
            every = [rows for _, images in _batches(samples, metadata, device) for rows in reference.predict(images)]
            thresholds = replace(thresholds, conf=_comparison_confidence(every, thresholds))
        report = ParityReport(tolerance, lowest(thresholds.conf))
        for names, images in _batches(samples, metadata, device):
            side = max(images.shape[2:])
            expected = reference.predict(images)
            try:
                actual = file.predict(images)
            except UserError as error:
                report.violations.append(f"{names[0]}: {error.what}")
                continue
            for name, theirs, given in zip(names, expected, actual, strict=True):
                ours = given.to(theirs.device)
                if not has_nms:
                    _compare_predictions(report, name, theirs, ours, lowest(thresholds.conf), side)
                # A file with NMS inside gives detections, which must not go through NMS again.
                found = _detections(ours, replace(thresholds, iou=1.0) if has_nms else thresholds)
                _compare_detections(report, name, _detections(theirs, thresholds), found, thresholds.conf, side)
                report.images += 1
    return report


def _batches(
    samples: SampleImages, metadata: Metadata, device: torch.device
) -> Iterator[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]]:
    """The images at the file's size; for a dynamic file, some also at a smaller size and another batch size."""
    sizes = [(metadata.img, metadata.batch, 0)]
    if metadata.dynamic:
        height, width = metadata.img
        # Captured programs need sides of at least two strides.
        low, high = (
            max(count, 2) * metadata.stride for count in (height // 2 // metadata.stride, width // metadata.stride - 1)
        )
        sizes.append(((min(low, height), min(high, width)), metadata.batch + 1, IMAGES_OF_SMALLER_SIZE))
    for canvas, batch, count in sizes:
        for names, images in samples.batches(canvas, batch, count):
            yield names, images.to(device)


def _comparison_confidence(predictions: Sequence[Float[Tensor, "_ o"]], thresholds: NMSSettings) -> Conf:
    """The confidence threshold to compare at: a lower one than that of `thresholds` where it leaves too little."""
    for conf in (thresholds.conf, *(conf for conf in LOWER_CONFIDENCES if conf < lowest(thresholds.conf))):
        if sum(len(_detections(rows, replace(thresholds, conf=conf))) for rows in predictions) >= MIN_DETECTIONS:
            return conf
    # A model that has hardly been trained: the boxes of its most confident predictions can still be compared.
    best = torch.cat([(rows[:, 5:] * rows[:, 4:5]).amax(1) for rows in predictions]).double()
    finite = best[best.isfinite()]
    return float(finite.topk(min(TOP_PREDICTIONS, len(finite))).values[-1]) * 0.999 if len(finite) else thresholds.conf


def _detections(rows: Float[Tensor, "n o"], thresholds: NMSSettings) -> Detections:
    conf, iou, max_det = thresholds.conf, thresholds.iou, thresholds.max_det
    (detections,) = non_max_suppression([rows], conf=conf, iou=iou, max_det=max_det, multi_label=False)
    return detections


def _compare_predictions(
    report: ParityReport, image: str, theirs: Tensor, ours: Tensor, conf: float, side: int
) -> None:
    if theirs.shape != ours.shape:
        report.violations.append(f"{image}: output of shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
        return
    scores = (theirs[:, 5:] * theirs[:, 4:5], ours[:, 5:] * ours[:, 4:5])
    # Boxes below the threshold are never used.
    used = (scores[0].amax(1) > conf) | (scores[1].amax(1) > conf)
    report.record(image, "row_box_difference", _largest((theirs[used, :4] - ours[used, :4]).abs() / side))
    report.record(image, "row_score_difference", _largest((scores[0] - scores[1]).abs()))


def _compare_detections(
    report: ParityReport, image: str, expected: Detections, found: Detections, conf: Conf, side: int
) -> None:
    """Match detections by class and IoU, the most confident first, and record their differences."""
    iou = pairwise_iou(expected.xyxy.double(), found.xyxy.double())
    iou[expected.class_id[:, None] != found.class_id[None]] = 0
    report.detections += len(expected)
    free = torch.ones(len(found), dtype=torch.bool, device=iou.device)
    unmatched: list[float] = []
    for i in range(len(expected)):
        candidates = iou[i] * free
        j = int(candidates.argmax()) if len(found) else -1
        if j < 0 or candidates[j] < MATCH_IOU:
            unmatched.append(_excess(expected, i, conf))
            continue
        free[j] = False
        report.matched += 1
        report.record(image, "box_difference", float((expected.xyxy[i] - found.xyxy[j]).abs().max()) / side)
        report.record(image, "score_difference", abs(float(expected.confidence[i] - found.confidence[j])))
    extra = [_excess(found, int(i), conf) for i in free.nonzero()]
    report.only_pytorch += len(unmatched)
    report.only_file += len(extra)
    if report.tolerance is None:
        return
    borderline = [excess for excess in (*unmatched, *extra) if excess <= report.tolerance]
    report.borderline += len(borderline)
    if len(borderline) < len(unmatched) + len(extra):
        report.violations.append(
            f"{image}: {len(unmatched)} detections only in PyTorch's output, {len(extra)} only in the file's"
        )


def _excess(detections: Detections, i: int, conf: Conf) -> float:
    """How far the confidence of a detection is above its threshold."""
    limit = conf[int(detections.class_id[i])] if isinstance(conf, tuple) else conf
    return float(detections.confidence[i]) - limit


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
