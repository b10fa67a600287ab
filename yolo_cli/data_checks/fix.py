"""`--fix`: a corrected copy of the labels beside links to the images, and a list of what was changed.

Only what is certain is changed: rows that cannot be used, double boxes of one class, images that cannot be read, and
images that are in another split, too.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from yolo_cli.data_checks.boxes import double_boxes, image_of_boxes
from yolo_cli.data_checks.duplicates import leaked_images
from yolo_cli.data_checks.findings import CheckedSplit
from yolo_cli.dataset.ignore_regions import ANY_CLASS
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.scan import label_path
from yolo_cli.dataset.yolo_labels import parse_row
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.run.folder import write_json

CHANGES = "changes.json"
MIN_INSIDE = 0.5  # of the area of a box that reaches out of the image, for it to be cut at the border


@dataclass(frozen=True, slots=True)
class Change:
    """One change: a file of the dataset, its line (0: the whole file), and what was done."""

    file: str
    line: int
    change: str


def check_target(folder: Path, root: Path) -> None:
    """Raises UserError where a copy cannot be written: the folder exists, or is inside the dataset."""
    where = f"--fix {folder}"
    if folder.exists():
        raise UserError("exists already and is not overwritten", where=where, fix="give a new folder")
    parent = Path(os.path.realpath(folder)).parent
    if Path(os.path.realpath(root)) in (parent, *parent.parents):
        raise UserError("is inside the dataset, which is only read", where=where, fix="give a folder elsewhere")
    existing = next(path for path in (parent, *parent.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError("cannot be written", where=where, fix="give another folder")


def write_fixed(folder: Path, splits: Sequence[CheckedSplit], names: Sequence[str]) -> list[Change]:
    """Write the copy to a new folder; returns the changes, which it also lists in changes.json. Raises UserError."""
    changes: list[Change] = []
    for split in splits:
        if len(split.index.spans):
            raise UserError(
                f"{split.name} is in tar shards, which are not copied", where="--fix", fix="unpack them first"
            )
    leaks = leaked_images(splits)
    with atomic_folder(folder, fix="give another --fix") as complete:
        for split in splits:
            changes += _write_split(complete, split, leaks[split.name], len(names))
        mapping = {"path": ".", **{split.name: f"images/{split.name}" for split in splits}, "names": list(names)}
        write_mapping(complete / "data.yaml", mapping)
        write_json(complete / CHANGES, [asdict(change) for change in changes])
    return changes


def _write_split(folder: Path, split: CheckedSplit, leaks: Mapping[int, str], nc: int) -> list[Change]:
    index, changes = split.index, []
    changes += [
        Change(problem.file, 0, f"left out: {problem.what}")
        for problem in index.problems
        if not problem.line and not problem.file.lower().endswith(".txt")
    ]
    for kind in ("images", "labels"):
        (folder / kind / split.name).mkdir(parents=True)
    with_txt = frozenset(split.files)
    problems: dict[str, dict[int, str]] = {}
    for problem in index.problems:
        problems.setdefault(problem.file, {})[problem.line] = problem.what
    doubles: dict[int, list[int]] = {}
    images = image_of_boxes(index)
    for first, second in double_boxes(index).tolist():
        if index.classes[first] == index.classes[second]:
            doubles.setdefault(int(images[second]), []).append(second - int(index.offsets[images[second]]))
    cut_off = split.stats.cut_off if split.stats else {}
    for row, path, place in _places(index):
        if row in leaks or row in cut_off:
            what = f"is in another split, too: {leaks[row]}" if row in leaks else cut_off[row]
            changes.append(Change(path, 0, f"left out: {what}"))
            continue
        link = folder / "images" / split.name / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        label = Path(label_path(path))
        if path in with_txt:
            if not label.is_file():
                continue
            text = label.read_bytes()
            content, changed = _fixed_text(text, problems.get(str(label), {}), doubles.get(row, []), nc)
            changes += [Change(str(label), line, what) for line, what in changed]
        else:
            content = _rows_of_index(index, row, doubles.get(row, []))
            changes += [Change(path, 0, "removed a double box") for _ in doubles.get(row, [])]
            if (index.ignored_rows(row)[:, 0] != ANY_CLASS).any():
                changes.append(Change(path, 0, "ignore regions of one class became regions for all classes"))
        target = (folder / "labels" / split.name / place).with_suffix(".txt")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return changes


def _places(index: LabelIndex) -> Iterator[tuple[int, str, str]]:
    """Row and path of each image, and its place below the folder that all images have in common."""
    paths = [os.path.abspath(index.path(row)) for row in range(len(index))]
    common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    for row, path in enumerate(paths):
        yield row, path, os.path.relpath(path, common)


def _fixed_text(
    text: bytes, problems: Mapping[int, str], doubles: Sequence[int], nc: int
) -> tuple[bytes, list[tuple[int, str]]]:
    """A label file without its bad rows and the valid rows `doubles`, and the changes. A sound file stays as it is."""
    if not problems and not doubles:
        return text, []
    kept, changes, valid = [], [], -1
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.split():
            continue
        if number not in problems:
            if float(line.split()[0]) < 0:  # a region to be ignored, which is no box
                kept.append(line)
                continue
            valid += 1
            if valid in doubles:
                changes.append((number, f"removed, a double box: {_shown(line)}"))
                continue
            kept.append(line)
        elif (cut := _cut_at_border(line.split(), nc)) is not None:
            kept.append(cut)
            changes.append((number, f"cut at the border of the image: {_shown(line)}"))
        else:
            changes.append((number, f"removed, {problems[number]}: {_shown(line)}"))
    return b"".join(line + b"\n" for line in kept), changes


def _cut_at_border(tokens: Sequence[bytes], nc: int) -> bytes | None:
    """A box row whose box is mostly inside the image, cut at its border; None for any other row."""
    if len(tokens) != 5:
        return None
    try:
        cx, cy, w, h = (float(token) for token in tokens[1:])
    except ValueError:
        return None
    if not all(np.isfinite((cx, cy, w, h))) or min(w, h) <= 0:
        return None
    left, right = max(cx - w / 2, 0.0), min(cx + w / 2, 1.0)
    top, bottom = max(cy - h / 2, 0.0), min(cy + h / 2, 1.0)
    if right <= left or bottom <= top or (right - left) * (bottom - top) < MIN_INSIDE * w * h:
        return None
    values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    row = [tokens[0], *(f"{value:.6g}".encode() for value in values)]
    return b" ".join(row) if isinstance(parse_row(row, nc), tuple) else None


def _rows_of_index(index: LabelIndex, row: int, doubles: Sequence[int]) -> bytes:
    rows = [labels for i, labels in enumerate(index.labels(row).tolist()) if i not in doubles]
    rows += [[ANY_CLASS, *region[1:]] for region in index.ignored_rows(row).tolist()]
    lines = (f"{int(c)} {x:.8g} {y:.8g} {w:.8g} {h:.8g}\n" for c, x, y, w, h in rows)
    return "".join(dict.fromkeys(lines)).encode()


def _shown(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")[:200]
