"""The results of an evaluation: results.json, dataset_report.json and the printed table."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolo_cli.dataset.splits import Split
from yolo_cli.evaluation.evaluate import Evaluation
from yolo_cli.io.atomic import write_file
from yolo_cli.run import provenance
from yolo_cli.run.folder import write_json


def write_results(
    folder: Path,
    evaluation: Evaluation,
    *,
    device: torch.device,
    splits: Sequence[Split],
    extra: Mapping[str, Any],
) -> None:
    """Write results.json: metrics, also per class, speed, dataset fingerprints, machine and versions."""
    content: dict[str, Any] = {
        **evaluation.metrics.to_dict(),
        "milliseconds_per_image": evaluation.milliseconds,
        "dataset": {
            split.name: {"images": len(split.index), "fingerprint": split.index.fingerprint} for split in splits
        },
        "machine": provenance.machine(device),
        "versions": provenance.versions(),
        **extra,
    }
    write_json(folder / "results.json", content)


def write_dataset_report(folder: Path, splits: Sequence[Split]) -> None:
    """Write dataset_report.json: every label row and file that is not used, with the reason."""
    # Encoded piece by piece: there can be a million problems.
    encoder = json.JSONEncoder(indent=1, ensure_ascii=False, allow_nan=False)
    with write_file(folder / "dataset_report.json", what="dataset_report.json") as file:
        for piece in encoder.iterencode({split.name: split.report() for split in splits}):
            file.write(piece.encode("utf-8", "backslashreplace"))  # file names may be any bytes
        file.write(b"\n")


def print_table(evaluation: Evaluation, info: Callable[[str], None], *, verbose: bool) -> None:
    """Print the metrics through `info`; those per class if `verbose`, or for up to ten classes."""
    m = evaluation.metrics
    info(f"{'class':>20} {'images':>8} {'labels':>8} {'P':>8} {'R':>8} {'mAP@.5':>8} {'mAP@.5:.95':>11}")
    rows: list[tuple[str, int, int, float, float, float, float]] = [
        ("all", m.images, m.labels, m.precision, m.recall, m.map50, m.map50_95)
    ]
    if len(m.per_class) > 1 and (verbose or len(m.per_class) <= 10):
        rows += [(c.name[:20], c.images, c.labels, c.precision, c.recall, c.map50, c.map50_95) for c in m.per_class]
    for name, images, labels, *values in rows:
        p, r, ap50, ap = values
        info(f"{name:>20} {images:>8,} {labels:>8,} {p:>8.3f} {r:>8.3f} {ap50:>8.3f} {ap:>11.3f}")
    speed = ", ".join(f"{name} {value:.1f}" for name, value in evaluation.milliseconds.items())
    info(f"ms per image: {speed}")
