"""Findings: what is wrong, where, why it hurts, and what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from yolo_cli.data_checks.image_stats import ImageStats
from yolo_cli.dataset.label_index import LabelIndex

ERROR, WARNING, SUSPECT, ADVICE = "error", "warning", "suspect", "advice"
SEVERITIES = (ERROR, WARNING, SUSPECT, ADVICE)
MAX_ITEMS = 10_000  # places listed per finding; counts are complete


@dataclass(frozen=True)
class CheckedSplit:
    """A split to check. `stats` is None where pixels are not read."""

    name: str
    files: tuple[str, ...]  # image files that have txt labels, and shards; unreadable ones included
    index: LabelIndex
    images: int  # image files found, unreadable ones included
    stats: ImageStats | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A box to draw: left, top, width, height in pixels of the image file; a style of the page and a text."""

    box: tuple[float, float, float, float]
    style: str = "wrong"
    label: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """An image to show: its row in the index of a split. With `zoom`, only the part around the marks."""

    split: str
    row: int
    marks: tuple[Mark, ...] = ()
    zoom: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a finding: a file, a line in it (0: the whole file), details, and images to show."""

    file: str
    line: int = 0
    detail: str = ""
    other: str = ""  # a second file, of a pair
    score: float | None = None  # of a suspected label error, 0 … 1
    views: tuple[View, ...] = ()

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        pair = f"{place} and {self.other}" if self.other else place
        return f"{pair}: {self.detail}" if self.detail and pair else pair or self.detail


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem in one split, or in several (`split` then names them)."""

    code: str  # a key of EXPLANATIONS
    severity: str
    split: str
    count: int
    what: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a kind of finding hurts, and what to do."""

    why: str
    fix: str


def listed(items: Iterable[Item]) -> tuple[Item, ...]:
    """The first MAX_ITEMS places."""
    return tuple(item for item, _ in zip(items, range(MAX_ITEMS), strict=False))


def count_of(number: int, one: str, many: str = "") -> str:
    """A number of things, for a sentence."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


EXPLANATIONS: Mapping[str, Explanation] = {
    "no-images": Explanation("The split cannot be used.", "Correct the path in data.yaml."),
    "unreadable-image": Explanation(
        "Training skips the image, or sees gray where its data ends.", "Copy the file again, or remove it."
    ),
    "damaged-image": Explanation(
        "A decoder guesses the damaged part, and another decoder guesses differently.", "Save or copy the file again."
    ),
    "missing-image": Explanation(
        "The annotation is not used.", "Add the image to the folder, or remove the annotation."
    ),
    "unreadable-label": Explanation("All boxes of the image are missing.", "Repair the label file."),
    "label-syntax": Explanation(
        "The row is skipped, so the object counts as background.",
        "Write `class cx cy w h`, or a polygon `class x1 y1 x2 y2 …`.",
    ),
    "label-range": Explanation(
        "The row is skipped, so the object counts as background.",
        "Coordinates are fractions of the image, from 0 to 1; pixels must be divided by its width and height.",
    ),
    "label-class": Explanation(
        "The row is skipped, so the object counts as background.",
        "Classes count from 0. Correct the row, or add the class to `names` in data.yaml.",
    ),
    "label-without-image": Explanation(
        "Its boxes are never trained on. Usually the image is missing, or has another name.",
        "Add the image, correct its name, or remove the label file.",
    ),
    "leak": Explanation(
        "The model is evaluated on what it was trained on, so its metrics are too high.",
        "Keep each image in one split. `--fix` leaves these out of train.",
    ),
    "duplicate-images": Explanation(
        "The image counts several times. If its copies have different labels, they contradict each other.",
        "Keep one copy, unless it is weighted on purpose.",
    ),
    "twice": Explanation("The second one is ignored, with its boxes.", "Remove the one that is wrong."),
    "near-duplicate": Explanation(
        "Nearly the same picture is in two splits, so the metrics are too high.",
        "Move both images into one split; `yolo split DATA` makes splits that keep them together.",
    ),
    "video-frames": Explanation(
        "Frames of one scene are in several splits. The model is evaluated on scenes that it was trained on.",
        "Split by video or scene, not by frame: `yolo split DATA`, with `--group` if names tell the scene.",
    ),
    "duplicate-rows": Explanation(
        "The row is skipped; it is listed because it often means that a tool exported twice.",
        "Remove the row. `--fix` does that.",
    ),
    "double-box": Explanation(
        "One object counts twice: in the loss, and as a missed object in the evaluation.",
        "Keep one of the boxes. `--fix` removes the second one if both have the same class.",
    ),
    "tiny-box": Explanation(
        "At this image size the object has next to no pixels. It cannot be learned, and it counts as missed.",
        "Use a larger --img or --tile, or remove the boxes.",
    ),
    "sliver": Explanation(
        "Such a box is usually a slip of the mouse, or the rest of an object that was cut off.", "Check the boxes."
    ),
    "full-box": Explanation(
        "The box covers the whole image, so it teaches no location. Classification data looks like this.",
        "Draw a box around the object.",
    ),
    "exif-turn": Explanation(
        "The labels fit the pixels as they are stored, but the image is shown turned by its EXIF orientation. Training "
        "applies the orientation, so the boxes are in the wrong place.",
        "Remove the EXIF tag, so that the image is shown as it was labeled; or turn the labels. No command here "
        "changes images.",
    ),
    "class-missing": Explanation(
        "A class without boxes cannot be learned (train) or measured (val).",
        "Move images with the class into the split, or take the class out of `names`.",
    ),
    "class-rare": Explanation(
        "With so few boxes, the class is hardly learned and its AP is mostly chance.",
        "Collect more images with the class, or merge it with another one.",
    ),
    "imbalance": Explanation(
        "Rare classes are seldom seen in training, and predicted too seldom.",
        "Collect more of the rare classes, or train with --image-weights.",
    ),
    "background": Explanation(
        "More than half of the images have no boxes. Some background reduces false alarms; this much slows training "
        "down. Label files may also be missing.",
        "Check that labels are found: `images` in the path becomes `labels`. Else remove some of the background.",
    ),
    "folder-per-class": Explanation(
        "Each folder holds one class, as in classification data. Objects of other classes in the same image are "
        "probably not labeled, and the model can learn the class from the background.",
        "Label all classes in all images.",
    ),
    "no-val": Explanation("Training needs a validation split to choose the best epoch.", "Add `val:` to data.yaml."),
    "dark": Explanation("Hardly anything is visible.", "Remove the images, or check the exposure."),
    "blurred": Explanation("No edges are left to place a box at.", "Remove the images, or label what is visible."),
    "uniform": Explanation("The image has no content: a lens cap, a failed download, an empty frame.", "Remove it."),
    "missing-label": Explanation("A confident prediction where no box is.", "Add the box if the object is there."),
    "wrong-class": Explanation("The model predicts another class at the same place.", "Correct the class if wrong."),
    "misplaced-box": Explanation("The model predicts the same class beside or around the box.", "Redraw the box."),
    "spurious-box": Explanation("No prediction of any confidence is near the box.", "Remove it if nothing is there."),
    "img": Explanation("A larger image has more pixels per object, and costs time and memory.", "See the line."),
    "anchors": Explanation("Anchors that match few boxes cost recall.", "Training refits them unless --noautoanchor."),
    "tile": Explanation("Objects are small in large images.", "See the line."),
    "rect": Explanation("Padding is computed and teaches nothing.", "See the line."),
    "cost": Explanation("Measured with one training step on this machine.", "See the line."),
}
