"""The label index of annotation files: boxes in pixels become fractions of the images, checked as YOLO rows are."""

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolo_cli.dataset.formats.annotations import DIFFICULT, NOT_LISTED, AnnotatedImage, Annotations
from yolo_cli.dataset.formats.formats import recognize
from yolo_cli.dataset.formats.image_finder import ImageFinder
from yolo_cli.dataset.ignore_regions import crowd_code, separate_regions
from yolo_cli.dataset.image_header import BadImage, image_size
from yolo_cli.dataset.image_list import ImageList
from yolo_cli.dataset.label_index import FORMAT, LabelIndex, Problem, load_cache, save_cache, with_fingerprint
from yolo_cli.dataset.yolo_labels import MAX_PROBLEMS, TOLERANCE
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter

ASPECT_TOLERANCE = 0.02  # by which the aspect ratio of a resized copy may differ from the annotated image
_PIXEL = 1.0  # by which boxes may exceed an image (rounding by the tool that wrote them); they are clipped


@dataclass(frozen=True, slots=True)
class AnnotationSource:
    """Annotation files of one split, the folders in which their images may be, and a list of those that are used.

    `listed` are the lines of an `ImageList`; None where all are used. With `ignore_difficult`, objects that VOC calls
    difficult are regions to be ignored.
    """

    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    listed: tuple[str, ...] | None = None
    ignore_difficult: bool = False

    def image_folder(self) -> str:
        """The folder that the images are in."""
        return ImageFinder(self.folders).folder


@dataclass(frozen=True, slots=True)
class AnnotatedIndex:
    """A label index whose classes are positions in `names`; `declared` if the files list their classes in order."""

    index: LabelIndex
    names: tuple[str, ...]
    declared: bool


def build_annotated_index(source: AnnotationSource, *, cache_dir: Path | None, reporter: Reporter) -> AnnotatedIndex:
    """Read annotation files and the sizes of their images, or load both from the cache if nothing has changed.

    Images that are missing or do not fit their annotation, and invalid rows, are left out and listed in `problems`.
    Raises UserError for files of an unknown format, and where none of the images exists.
    """
    finder = ImageFinder(source.folders)
    cache, key = None, ""
    if cache_dir is not None:
        digest = hashlib.blake2b(digest_size=12)
        difficult = ("ignore_difficult",) if source.ignore_difficult else ()
        for part in (source.path, *source.folders, *source.files, *(source.listed or ("*",)), *difficult):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
        cache = cache_dir / "labels" / f"{digest.hexdigest()}-annotations.npz"
        key = _state_hash([*source.files, *finder.files])
        stored = load_cache(cache, key)
        if stored is not None:
            index, (declared, *names) = stored
            return AnnotatedIndex(index, tuple(names), declared == "declared")
    annotations = _read(source, finder)
    index = _index(annotations, reporter)
    if cache is not None:
        save_cache(cache, key, index, ("declared" if annotations.declared else "", *annotations.names))
    return AnnotatedIndex(index, tuple(annotations.names), annotations.declared)


def renumbered(annotated: AnnotatedIndex, names: Sequence[str], where: object) -> LabelIndex:
    """The index with the class numbers of `names`. Raises UserError for a class with boxes that is not among them."""
    if tuple(annotated.names) == tuple(names):
        return annotated.index
    numbers = {name: i for i, name in enumerate(names)}
    unknown = [name for name in annotated.names if name not in numbers]
    used = np.unique(annotated.index.classes)
    for name in unknown:
        if annotated.declared or annotated.names.index(name) in used:
            raise UserError(
                f"class {name!r}{_uses(annotated, name)} is not among the names of data.yaml ({_short_list(names)})",
                where=where,
                fix=_fix(name, names),
            )
    index, ignored = annotated.index, annotated.index.ignored
    table = np.array([numbers.get(name, -1) for name in annotated.names], np.int32)
    if not len(table):
        return index
    ignored = ignored.renumbered(table) if ignored else None
    return with_fingerprint(replace(index, classes=table[index.classes], ignored=ignored))


def _fix(name: str, names: Sequence[str]) -> str:
    for known in names:
        if known.casefold().strip() == name.casefold().strip():
            return f"write it as in the annotations: {name!r} instead of {known!r}"
    meant = difflib.get_close_matches(name, names, n=1)
    correct = f"if it is {meant[0]!r}, correct the annotations; else " if meant else ""
    return f"{correct}add it to `names`, or remove `names` to use those of the annotations"


def _uses(annotated: AnnotatedIndex, name: str) -> str:
    """How many boxes a class has, and the first image with one."""
    rows = np.flatnonzero(annotated.index.classes == annotated.names.index(name))
    if not len(rows):
        return ""
    image = int(np.searchsorted(annotated.index.offsets, rows[0], side="right")) - 1
    boxes = "1 box" if len(rows) == 1 else f"{len(rows):,} boxes"
    return f" ({boxes}, the first in {os.path.basename(annotated.index.path(image))})"


def _short_list(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", … {len(names)} in all" if len(names) > 5 else "")


def _read(source: AnnotationSource, finder: ImageFinder) -> Annotations:
    found = recognize(source.files)
    if found is None:
        raise UserError(
            "is none of the known formats (COCO, Pascal VOC, CVAT, LabelMe)",
            where=source.path,
            fix="export the dataset as one of them, or as YOLO txt",
        )
    fitting = [file for file in source.files if file.lower().endswith(found.format.suffix)]
    annotations = found.format.read(fitting, finder, {found.file: found.content})
    if not annotations.images:
        first = f", first problem: {annotations.problems[0][2]}" if annotations.problems else ""
        folders = " or ".join(finder.folders[:3])
        where = f"no images are in {folders}" if not finder.files else f"none of its images is in {folders}"
        raise UserError(
            f"{found.format.title}: {where}{first}",
            where=source.path,
            fix="write `{images: FOLDER, annotations: …}` with the folder of the images",
        )
    if source.listed is not None:
        _keep_listed(annotations, source)
    if source.ignore_difficult:
        _ignore_difficult(annotations)
    annotations.images.sort(key=lambda image: image.file)
    return annotations


def _keep_listed(annotations: Annotations, source: AnnotationSource) -> None:
    """Leave out images that are not in the list."""
    used = ImageList(source.listed or ())
    annotations.images = [image for image in annotations.images if used.selects(image.file)]
    annotations.problems += [(line, 0, "is in the list, but has no annotation") for line in used.not_found()]
    annotations.notes.pop(NOT_LISTED, None)


def _ignore_difficult(annotations: Annotations) -> None:
    """Make crowd regions of difficult objects."""
    for image in annotations.images:
        if difficult := set(image.difficult):
            annotations.notes[DIFFICULT] += len(difficult)
            image.rows = [(row[0], crowd_code(row[1]), *row[2:]) if row[0] in difficult else row for row in image.rows]


def _index(annotations: Annotations, reporter: Reporter) -> LabelIndex:
    problems = [Problem(*problem) for problem in annotations.problems]
    images: list[AnnotatedImage] = []
    sizes: list[tuple[int, int]] = []
    with reporter.bar(len(annotations.images), "image sizes") as bar:
        for image in annotations.images:
            bar.advance()
            try:
                size = image_size(image.file)
                _check_size(size, image)
            except BadImage as error:
                problems.append(Problem(image.file, 0, str(error)))
            except OSError as error:
                problems.append(Problem(image.file, 0, f"cannot be read ({error.strerror})"))
            else:
                images.append(image)
                sizes.append(size)
    rows = np.array([row for image in images for row in image.rows], np.float64).reshape(-1, 6)
    counts = np.array([len(image.rows) for image in images], np.int64)
    owner = np.repeat(np.arange(len(images)), counts)
    declared = np.array(
        [image.size or size for image, size in zip(images, sizes, strict=True)], np.float64
    ).reshape(-1, 2)[owner]  # fmt: skip
    extent = declared[:, [1, 0, 1, 0]]
    boxes = rows[:, 2:] / extent
    valid = _check_rows(owner, rows, boxes, extent, images, problems)
    boxes = np.clip(boxes[valid], 0.0, 1.0)
    classes, boxes, offsets, ignored = separate_regions(
        rows[valid, 1].astype(np.int32),
        boxes.astype(np.float32),
        _offsets(np.bincount(owner[valid], minlength=len(images)).astype(np.int64)),
    )
    names = [os.fsencode(image.file) for image in images]
    return with_fingerprint(
        LabelIndex(
            paths=b"".join(names),
            path_offsets=_offsets(np.array([len(name) for name in names], np.int64)),
            spans=np.zeros((0, 3), np.int64),
            sizes=np.array(sizes, np.int32).reshape(-1, 2),
            classes=classes,
            boxes=boxes,
            offsets=offsets,
            ignored=ignored,
            problems=tuple(problems),
            fingerprint="",
            notes=tuple(f"{what}: {count:,}" for what, count in annotations.notes.items()),
        )
    )


def _check_size(size: tuple[int, int], image: AnnotatedImage) -> None:
    """Raises BadImage where an image has another shape than its annotation states; a resized one is accepted."""
    if image.size is None:
        return
    ratio = size[0] * image.size[1] / (size[1] * image.size[0])
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        turned = " (turned by its EXIF orientation?)" if size == image.size[::-1] else ""
        raise BadImage(
            f"is {size[1]}×{size[0]} as displayed, but its annotation is for {image.size[1]}×{image.size[0]}{turned}"
        )


def _check_rows(
    owner: Int64[np.ndarray, " m"],
    rows: Float64[np.ndarray, "m 6"],
    boxes: Float64[np.ndarray, "m 4"],
    extent: Float64[np.ndarray, "m 4"],
    images: Sequence[AnnotatedImage],
    problems: list[Problem],
) -> Bool[np.ndarray, " m"]:
    """Which rows are valid, by the rules for YOLO rows; the others are reported."""
    tolerance = np.maximum(TOLERANCE, _PIXEL / extent)
    finite: Bool[np.ndarray, " m"] = np.isfinite(boxes).all(1)
    with np.errstate(invalid="ignore"):
        inside: Bool[np.ndarray, " m"] = np.all((boxes >= -tolerance) & (boxes <= 1 + tolerance), axis=1)
        flat: Bool[np.ndarray, " m"] = np.any(boxes[:, 2:] <= 0, axis=1)
    valid = finite & inside & ~flat
    duplicate = np.zeros(len(rows), bool)
    if valid.any():
        kept = np.flatnonzero(valid)
        identity = np.column_stack([owner[kept], rows[kept, 1], boxes[kept]])
        first = np.unique(identity, axis=0, return_index=True)[1]
        duplicate[np.delete(kept, first)] = True
    bad_of: dict[str, int] = {}
    for i in np.flatnonzero(~valid | duplicate).tolist():
        source = images[owner[i]].source
        bad_of[source] = bad_of.get(source, 0) + 1
        if bad_of[source] > MAX_PROBLEMS:
            continue
        if not finite[i]:
            what = "box that is not made of numbers"
        elif flat[i]:
            what = "box without width or height"
        elif duplicate[i]:
            what = "duplicate row"
        else:
            cx, cy, w, h = rows[i, 2:]
            size = f"{extent[i, 0]:g}×{extent[i, 1]:g} pixels"
            what = f"box {cx - w / 2:g} {cy - h / 2:g} {cx + w / 2:g} {cy + h / 2:g} is outside the image of {size}"
        if len({image.source for image in images[:2]}) == 1 and len(images) > 1:
            what = f"{what} ({Path(images[owner[i]].file).name})"
        problems.append(Problem(source, int(rows[i, 0]), what))
    for source, bad in bad_of.items():
        if bad > MAX_PROBLEMS:
            problems.append(Problem(source, 0, f"{bad - MAX_PROBLEMS} more bad rows in this file"))
    return valid & ~duplicate


def _offsets(counts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n1"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _state_hash(files: Sequence[str]) -> str:
    """A hash of the names, sizes and modification times of files."""
    digest = hashlib.blake2b(f"{FORMAT}".encode(), digest_size=16)
    for file in files:
        try:
            state = os.stat(file)
            digest.update(b"%s %d %d;" % (os.fsencode(file), state.st_size, state.st_mtime_ns))
        except OSError:
            digest.update(b"-;")
    return digest.hexdigest()
