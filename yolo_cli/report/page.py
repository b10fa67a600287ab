"""The page of a report: findings and pictures into HTML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_cli.evaluation.comparison import SUMMARY, Difference, verdict
from yolo_cli.report import figures, text
from yolo_cli.report.findings import BestF1, Findings, best_f1, class_counts
from yolo_cli.report.gallery import Card, Part, build_gallery, confusion_parts, suspect_parts
from yolo_cli.report.html import render_page
from yolo_cli.report.run_files import RunFiles
from yolo_cli.report.tide import ERRORS

MAX_PROBLEMS = 200  # of the dataset, listed
MAX_CLASS_ROWS, MAX_ERROR_ROWS = 5000, 300


@dataclass(frozen=True)
class ClassRow:
    """A class with ground truth."""

    class_id: int
    name: str
    images: int
    labels: int
    ap: str
    ap_sort: float
    change: str
    change_sort: float
    ap50: float
    best: BestF1


def render(findings: Findings, run: RunFiles, base: str = "") -> str:
    """The HTML of a report, of limited size (`render_page`). `base` is the name of the run that it is compared with.

    Reads the images that are shown. Those that cannot be read are listed on the page.
    """
    cards, confusions, suspects = build_gallery(findings), confusion_parts(findings), suspect_parts(findings)
    parts = [part for group in (*confusions, *suspects.values()) for part in group]
    pictures = [part.picture for part in parts] + [card.picture for card in cards]
    context = _context(findings, run, base, cards, confusions, suspects)
    return render_page("report.html.j2", context, pictures, findings.saved)


def _context(
    findings: Findings,
    run: RunFiles,
    base: str,
    cards: Sequence[Card],
    confusions: Sequence[Sequence[Part]],
    suspects: Mapping[str, Sequence[Part]],
) -> dict[str, Any]:
    tags: frozenset[str] = frozenset().union(*(card.tags | ({"worst"} if card.worst else set()) for card in cards))
    names = findings.saved.names
    shown_classes = sorted({int(tag[1:]) for tag in tags if tag.startswith("c") and "-" not in tag})
    pr_figures = figures.pr_figures(findings)
    counts = class_counts(findings.mistakes, len(names))
    return {
        "title": text.shortened(run.folder.resolve().name),
        "findings": findings,
        "metrics": findings.metrics,
        "summary": [_headline(findings, metric) for metric in SUMMARY],
        "verdict": _verdict(findings, run, base),
        "base": text.shortened(base),
        "rows": _class_rows(findings),
        "error_rows": _error_rows(findings, counts),
        "error_classes": int((counts.sum(axis=1) > 0).sum()),
        "error_names": ERRORS,
        "error_totals": counts.sum(axis=0).tolist(),
        "largest_gain": max(findings.gains.values()) or 1.0,
        "names": names,
        "tags": tags,
        "parts_of_data": _parts_of_data(findings),
        "metric_tags": _metric_tags(findings),
        "shown_classes": shown_classes,
        "cards": cards,
        "confusions": list(zip(findings.confusions, confusions, strict=True)),
        "suspects": suspects,
        "suspect_counts": {kind: len(getattr(findings.suspects, kind)) for kind in suspects},
        "pr_figures": pr_figures,
        "pr_classes": {figure.class_id for figure in pr_figures},
        "mean_figure": figures.mean_figure(findings),
        "calibration_figure": figures.calibration_figure(findings),
        "training_figures": figures.training_figures(run.epochs),
        "problems": _problems(run.dataset),
        "max_problems": MAX_PROBLEMS,
        "settings": _settings(run),
        "fingerprint": findings.saved.fingerprint,
    }


def _metric_tags(findings: Findings) -> dict[str, str]:
    """By metric of a box size, the tag of the images that have such boxes."""
    sizes = [(i, each.label) for i, each in enumerate(findings.slices) if each.group == "size"]
    return {f"mAP_{label.partition(':')[0]}": f"h{i}" for i, label in sizes}


def _parts_of_data(findings: Findings) -> list[tuple[str, str]]:
    """The tags of `Card` that are no mistakes of a class, and what a filter calls them."""
    parts = []
    for i, each in enumerate(findings.slices):
        name = f"{each.group}: {each.label}"
        parts += [(f"h{i}", f"boxes, {name}"), (f"s{i}", f"not found, {name}"), (f"w{i}", f"wrong, {name}")]
    for i, bin_ in enumerate(findings.calibration.bins):
        name = f"confidence {text.decimals(bin_.low)} to {text.decimals(bin_.high)}"
        parts += [(f"q{i}", f"predictions, {name}"), (f"b{i}", f"wrong, {name}")]
    names = findings.saved.names
    return parts + [(f"t{i}", f"boxes of {text.shortened(name, 60)}") for i, name in enumerate(names)]


def _headline(findings: Findings, metric: str) -> tuple[str, str, Difference | None]:
    return metric, text.score(findings.scores.scores[metric]), findings.scores.differences.get(metric)


def _verdict(findings: Findings, run: RunFiles, base: str) -> str:
    main = findings.scores.differences.get(SUMMARY[0])
    if main is None or np.isnan(main.value):
        return ""
    sentence = verdict(run.folder.resolve().name, base, main, findings.metrics.images)
    return text.shortened(sentence, 400)


def _class_rows(findings: Findings) -> list[ClassRow]:
    most = sorted(findings.metrics.per_class, key=lambda row: -row.labels)[:MAX_CLASS_ROWS]
    best, scores, changes = best_f1(findings.metrics), findings.scores.class_scores, findings.scores.class_differences
    return [
        ClassRow(
            row.class_id,
            text.shortened(row.name),
            row.images,
            row.labels,
            text.score(scores[row.class_id]),
            scores[row.class_id].value,
            text.change(changes[row.class_id]) if changes else "",
            changes[row.class_id].value if changes else 0.0,
            row.map50,
            best[row.class_id],
        )
        for row in sorted(most, key=lambda row: row.class_id)
    ]


def _error_rows(findings: Findings, counts: np.ndarray) -> list[tuple[int, str, list[int]]]:
    """The classes with the most mistakes, most first; also classes that are predicted and have no ground truth."""
    total = counts.sum(axis=1)
    order = np.argsort(-total, kind="stable")
    return [
        (i, text.shortened(findings.saved.names[i]), counts[i].tolist())
        for i in order[total[order] > 0][:MAX_ERROR_ROWS].tolist()
    ]


def _problems(dataset: Mapping[str, Any]) -> list[tuple[str, int, list[str]]]:
    """By split: the number of problems, and the first of them as lines."""
    result = []
    for split, content in dataset.items():
        problems = content.get("problems") if isinstance(content, dict) else None
        if not isinstance(problems, list):
            continue
        rows = [row for row in problems[:MAX_PROBLEMS] if isinstance(row, dict)]
        lines = [
            f"{row.get('file')}{':' + str(row['line']) if row.get('line') else ''}: {row.get('what')}" for row in rows
        ]
        result.append((text.shortened(str(split)), len(problems), [text.shortened(line, 300) for line in lines]))
    return result


def _settings(run: RunFiles) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of names and values."""
    tables = {
        "Options": run.options,
        "Hyperparameters": run.hyp,
        "Versions": run.results.get("versions"),
        "Machine": run.results.get("machine"),
        "Milliseconds per image": run.results.get("milliseconds_per_image"),
        "Dataset": run.results.get("dataset"),
    }
    return [
        (heading, [(text.shortened(str(key)), _value(value)) for key, value in content.items()])
        for heading, content in tables.items()
        if isinstance(content, Mapping) and content
    ]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list):
        return text.shortened(json.dumps(value, ensure_ascii=False, default=str), 200)
    return text.shortened(str(value), 200)
