"""Which images a report shows, and what is drawn on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from yolo_cli.report.findings import Findings
from yolo_cli.report.pictures import Overlay, Picture, around, boxes_of
from yolo_cli.report.text import shortened
from yolo_cli.report.tide import CORRECT, ERRORS

WORST = 50
MAX_IMAGES = 110  # the worst ones, and examples of what these do not show
MAX_DRAWN = 80  # boxes per image and kind
PICTURE_SIDE, PART_SIDE = 400, 120
PARTS_PER_CONFUSION = 4
SUSPECTS_PER_KIND = 24


@dataclass(frozen=True)
class Card:
    """An image of the gallery.

    `tags` are what it is an example of. Mistakes: `c3` of class 3, `e-missed`, `c3-e-missed`. Parts of the data: `t3`
    has boxes of class 3; `h2` boxes of slice 2, `s2` such that are not found, `w2` wrong predictions; `q7` predictions
    of calibration bin 7, `b7` wrong ones.
    """

    picture: Picture
    file: str
    summary: str
    tags: frozenset[str]
    worst: bool


@dataclass(frozen=True)
class Part:
    """A piece of an image, with a line about it."""

    picture: Picture
    file: str
    caption: str


def image_tags(findings: Findings) -> list[set[str]]:
    """The tags of every image, by row."""
    mistakes, gt, pred = findings.mistakes, findings.saved.data.ground_truth, findings.saved.data.predictions
    tags: list[set[str]] = [set() for _ in findings.saved.paths]
    rows = zip(mistakes.image.tolist(), mistakes.class_id.tolist(), mistakes.kind.tolist(), strict=True)
    for image, class_id, kind in rows:
        error = f"e-{ERRORS[kind]}"
        tags[image] |= {f"c{class_id}", error, f"c{class_id}-{error}"}
    marked = []
    for i, part in enumerate(findings.slices):
        marked += [(f"h{i}", gt.image[part.boxes]), (f"s{i}", gt.image[part.missed]), (f"w{i}", pred.image[part.wrong])]
    for i, each in enumerate(findings.calibration.bins):
        marked += [(f"q{i}", pred.image[each.predictions]), (f"b{i}", pred.image[each.wrong])]
    for tag, images in marked:
        for image in np.unique(images).tolist():
            tags[image].add(tag)
    for image, class_id in zip(gt.image.tolist(), gt.class_id.tolist(), strict=True):
        tags[image].add(f"t{class_id}")
    return tags


def choose_images(findings: Findings, tags: Sequence[set[str]]) -> list[int]:
    """The worst images by number of mistakes, then examples of tags that these do not have; rare tags come last."""
    count = np.bincount(findings.mistakes.image, minlength=len(tags))
    order = np.argsort(-count, kind="stable").tolist()
    chosen = [image for image in order[:WORST] if count[image]]
    shown = set().union(*(tags[image] for image in chosen))
    frequency = Counter(tag for of_image in tags for tag in of_image)
    first: dict[str, int] = {}
    for image in order:
        for tag in tags[image] - shown:
            first.setdefault(tag, image)
    for tag, _ in sorted(frequency.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) >= MAX_IMAGES:
            break
        if tag not in shown:
            chosen.append(first[tag])
            shown |= tags[first[tag]]
    return chosen


def build_gallery(findings: Findings) -> list[Card]:
    """The cards, without pixels yet."""
    saved, tags = findings.saved, image_tags(findings)
    count = np.bincount(findings.mistakes.image, minlength=len(tags))
    worst = {image for image in np.argsort(-count, kind="stable")[:WORST].tolist() if count[image]}
    cards = []
    for image in choose_images(findings, tags):
        height, width = saved.data.sizes[image].tolist()
        kinds = Counter(findings.mistakes.kind[findings.mistakes.image == image].tolist())
        summary = ", ".join(f"{kinds[i]} {name}" for i, name in enumerate(ERRORS) if kinds[i]) or "no mistake"
        file = file_name(saved.paths[image])
        picture = Picture(
            image, (0.0, 0.0, float(width), float(height)), PICTURE_SIDE, f"{file}: {summary}", _drawn(findings, image)
        )
        cards.append(Card(picture, file, summary, frozenset(tags[image]), image in worst))
    return cards


def confusion_parts(findings: Findings) -> list[list[Part]]:
    """Examples of each confusion, the most confident ones."""
    return [
        [
            _pair(findings, prediction, box, with_names=False)
            for prediction, box in confusion.pairs[:PARTS_PER_CONFUSION].tolist()
        ]
        for confusion in findings.confusions
    ]


def suspect_parts(findings: Findings) -> dict[str, list[Part]]:
    """Suspected label errors of each kind, the most suspicious ones."""
    suspects, names, data = findings.suspects, findings.saved.names, findings.saved.data
    pred, gt = data.predictions, data.ground_truth
    parts: dict[str, list[Part]] = {"no_label": [], "never_found": [], "other_class": []}
    for i in suspects.no_label[:SUSPECTS_PER_KIND].tolist():
        name = shortened(names[pred.class_id[i]])
        caption = f"predicted: {name}, confidence {pred.confidence[i]:.2f}"
        parts["no_label"].append(_part(findings, int(pred.image[i]), [(pred.xywh[i].tolist(), "wrong", "")], caption))
    for i in suspects.never_found[:SUSPECTS_PER_KIND].tolist():
        caption = f"labeled: {shortened(names[gt.class_id[i]])}"
        parts["never_found"].append(_part(findings, int(gt.image[i]), [(gt.xywh[i].tolist(), "truth", "")], caption))
    parts["other_class"] = [_pair(findings, i, j) for i, j in suspects.other_class[:SUSPECTS_PER_KIND].tolist()]
    return parts


def file_name(path: str) -> str:
    """The last two parts of a path, for display."""
    return shortened("/".join(PurePath(path).parts[-2:]))


def _pair(findings: Findings, prediction: int, box: int, *, with_names: bool = True) -> Part:
    """The place where a prediction and a box differ in their class."""
    pred, gt, names = findings.saved.data.predictions, findings.saved.data.ground_truth, findings.saved.names
    predicted, true = shortened(names[pred.class_id[prediction]]), shortened(names[gt.class_id[box]])
    names_of = f"labeled: {true}; predicted: {predicted}, " if with_names else ""
    caption = f"{names_of}confidence {pred.confidence[prediction]:.2f}"
    rows = [(gt.xywh[box].tolist(), "truth", ""), (pred.xywh[prediction].tolist(), "wrong", "")]
    return _part(findings, int(gt.image[box]), rows, caption)


def _part(findings: Findings, image: int, rows: list[tuple[list[float], str, str]], caption: str) -> Part:
    region = around([box for box, _, _ in rows], findings.saved.data.sizes[image].tolist())
    file = shortened(PurePath(findings.saved.paths[image]).name)
    return Part(Picture(image, region, PART_SIDE, f"{file}. {caption}", boxes_of(rows)), file, caption)


def _drawn(findings: Findings, image: int) -> list[Overlay]:
    """Mistakes, then what is correct; of many, missed boxes and the most confident predictions.

    Only mistakes have labels, which come first where labels are in each other's way.
    """
    pred, gt, names = findings.saved.data.predictions, findings.saved.data.ground_truth, findings.saved.names
    boxes = slice(*np.searchsorted(gt.image, [image, image + 1]).tolist())
    rows = slice(*np.searchsorted(pred.image, [image, image + 1]).tolist())
    truth = [
        (box, "missed" if missed else "truth", f"{shortened(names[c], 24)}, missed" if missed else "")
        for box, c, missed, crowd in zip(
            gt.xywh[boxes].tolist(),
            gt.class_id[boxes].tolist(),
            findings.missed[boxes].tolist(),
            gt.crowd[boxes].tolist(),
            strict=True,
        )
        if not crowd
    ]
    truth.sort(key=lambda row: row[1] == "truth")
    selected = np.flatnonzero(findings.confident[rows] & (findings.errors.kind[rows] >= CORRECT)) + rows.start
    selected = selected[np.argsort(-pred.confidence[selected], kind="stable")][:MAX_DRAWN]
    predicted = []
    for i in selected.tolist():
        kind, name = int(findings.errors.kind[i]), shortened(names[pred.class_id[i]], 24)
        style, why = ("right", "") if kind == CORRECT else ("wrong", f", {ERRORS[kind]}")
        predicted.append((pred.xywh[i].tolist(), style, f"{name} {pred.confidence[i]:.2f}{why}" if why else ""))
    truth, predicted = truth[:MAX_DRAWN], predicted[:MAX_DRAWN]
    return boxes_of(sorted(truth + predicted, key=lambda row: not row[2]))
