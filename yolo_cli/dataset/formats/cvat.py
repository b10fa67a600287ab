"""CVAT XML ("CVAT for images" and "CVAT for video"): one file per task, shapes per image or per track."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from yolo_cli.dataset.formats.annotations import (
    ENCLOSED,
    NO_BOX,
    WITHOUT_BOX,
    AnnotatedImage,
    Annotations,
    Box,
    box_of_edges,
    enclosing_box,
    number_of,
    size_of,
    turned_box,
)
from yolo_cli.dataset.formats.image_finder import ImageFinder
from yolo_cli.errors import UserError
from yolo_cli.io.xml_file import read_xml

MAX_BYTES = 2 * 2**30


def is_cvat(root: Element) -> bool:
    return root.tag == "annotations"


def read(files: Sequence[str], images: ImageFinder, opened: Mapping[str, Any]) -> Annotations:
    """Read CVAT XML, of one task or several. A row of a problem is the position of a shape in its image or track.

    Classes are the labels of the task, in its order. Frames of a video are images named frame_000000 and so on.
    Raises UserError for a file that is not CVAT XML.
    """
    result = Annotations()
    by_file: dict[str, AnnotatedImage] = {}
    for source in files:
        root = opened[source] if source in opened else read_xml(Path(source), max_bytes=MAX_BYTES)
        if not is_cvat(root):
            raise UserError(f"is no CVAT XML: its root is <{root.tag[:40]}>, not <annotations>", where=source)
        for label in root.iterfind("meta//labels/label"):
            result.class_of((label.findtext("name") or "").strip())
            result.declared = True
        for entry in root.iterfind("image"):
            name, size = entry.get("name") or "", size_of(entry.get("height"), entry.get("width"))
            image = _image(partial(images.find, name), source, size, by_file, result)
            if image is not None:
                _add_shapes(entry, image, result)
        _read_tracks(root, source, images, by_file, result)
    return result


def _image(
    find: Callable[[], str],
    source: str,
    size: tuple[int, int] | None,
    by_file: dict[str, AnnotatedImage],
    result: Annotations,
) -> AnnotatedImage | None:
    """The image that `find` names; None for one that does not exist, which is reported."""
    try:
        file = find()
    except UserError as error:
        result.problems.append((source, 0, error.what))
        return None
    if file not in by_file:
        by_file[file] = AnnotatedImage(file, source, size)
        result.images.append(by_file[file])
    return by_file[file]


def _read_tracks(
    root: Element, source: str, images: ImageFinder, by_file: dict[str, AnnotatedImage], result: Annotations
) -> None:
    size = size_of(root.findtext(".//original_size/height"), root.findtext(".//original_size/width"))
    frames: dict[str, AnnotatedImage | None] = {}
    for track in root.iterfind("track"):
        for number, shape in enumerate(track, 1):
            frame = shape.get("frame") or ""
            if shape.get("outside") == "1" or not frame.isdecimal():
                continue
            if frame not in frames:
                stem = f"frame_{int(frame):06d}"
                frames[frame] = _image(partial(images.find_stem, stem, ()), source, size, by_file, result)
            if (image := frames[frame]) is not None:
                _add_shape(shape, track.get("label") or "", number, image, result)


def _add_shapes(entry: Element, image: AnnotatedImage, result: Annotations) -> None:
    for number, shape in enumerate((child for child in entry if child.get("label") is not None), 1):
        _add_shape(shape, shape.get("label") or "", number, image, result)


def _add_shape(shape: Element, label: str, number: int, image: AnnotatedImage, result: Annotations) -> None:
    if shape.tag not in _BOXES:
        result.notes[WITHOUT_BOX] += 1
        return
    box = _BOXES[shape.tag](shape)
    if shape.tag != "box":
        result.notes[ENCLOSED] += 1
    degrees = number_of(shape.get("rotation") or 0)
    if degrees and shape.tag in ("box", "ellipse"):
        result.notes[ENCLOSED] += shape.tag == "box"
        box = turned_box(box, degrees)
    image.rows.append((number, result.class_of(label.strip()), *box))


def _values(shape: Element, *names: str) -> list[float]:
    return [number_of(shape.get(name)) for name in names]


def _of_edges(shape: Element) -> Box:
    x1, y1, x2, y2 = _values(shape, "xtl", "ytl", "xbr", "ybr")
    return box_of_edges(x1, y1, x2, y2)


def _of_points(shape: Element) -> Box:
    """The box around `x1,y1;x2,y2;…`."""
    points = [point.split(",") for point in (shape.get("points") or "").split(";")]
    if any(len(point) != 2 for point in points):
        return NO_BOX
    return enclosing_box([number_of(x) for x, _ in points], [number_of(y) for _, y in points])


def _of_ellipse(shape: Element) -> Box:
    cx, cy, rx, ry = _values(shape, "cx", "cy", "rx", "ry")
    return cx, cy, 2 * rx, 2 * ry


def _of_mask(shape: Element) -> Box:
    left, top, width, height = _values(shape, "left", "top", "width", "height")
    return box_of_edges(left, top, left + width, top + height)


_BOXES: Mapping[str, Callable[[Element], Box]] = {
    "box": _of_edges,
    "polygon": _of_points,
    "ellipse": _of_ellipse,
    "mask": _of_mask,
}
