"""LabelMe JSON: one file per image, shapes as points in pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_cli.dataset.formats.annotations import (
    ENCLOSED,
    NO_BOX,
    NOT_LISTED,
    WITHOUT_BOX,
    AnnotatedImage,
    Annotations,
    Box,
    enclosing_box,
    number_of,
    size_of,
)
from yolo_cli.dataset.formats.image_finder import ImageFinder
from yolo_cli.errors import UserError
from yolo_cli.io.json_file import read_json

MAX_BYTES = 256 * 2**20  # files may have the image in them
_RECTANGLES = ("rectangle", "mask")
_AREAS = ("polygon", "oriented_rectangle", "rotation")


def is_labelme(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read(files: Sequence[str], images: ImageFinder, opened: Mapping[str, Any]) -> Annotations:
    """Read LabelMe JSON. A row of a problem is the position of a shape in its file."""
    result = Annotations()
    described = set()
    for file in files:
        try:
            document = opened[file] if file in opened else read_json(Path(file), max_bytes=MAX_BYTES)
            if not is_labelme(document):
                raise UserError("is no LabelMe JSON (an object with shapes)")
            image = _image(file, document, images)
        except UserError as error:
            line = error.where.rpartition(":")[2]
            result.problems.append((file, int(line) if line.isdecimal() else 0, error.what))
            continue
        if image.file in described:
            result.problems.append((file, 0, f"{image.file} has another annotation file, which is used"))
            continue
        described.add(image.file)
        result.images.append(image)
        for number, shape in enumerate(document["shapes"], 1):
            _add_shape(shape, number, image, result)
    if left_out := len(images.files) - len(described):
        result.notes[NOT_LISTED] += left_out
    return result


def _image(file: str, document: dict[str, Any], images: ImageFinder) -> AnnotatedImage:
    """The image with the stem of the JSON file, else the one that it names."""
    size = size_of(document.get("imageHeight"), document.get("imageWidth"))
    try:
        found = images.find_stem(Path(file).stem, Path(file).parent.parts)
    except UserError:
        name = document.get("imagePath")
        found = images.find(name if isinstance(name, str) else "")
    return AnnotatedImage(found, file, size)


def _add_shape(shape: object, number: int, image: AnnotatedImage, result: Annotations) -> None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        result.problems.append((image.source, number, "shape without a label"))
        return
    kind = shape.get("shape_type") or "polygon"
    if kind in _RECTANGLES:
        box = _box_around(shape.get("points"))
    elif kind in _AREAS:
        box = _box_around(shape.get("points"))
        result.notes[ENCLOSED] += 1
    elif kind == "circle":
        box = _circle(shape.get("points"))
        result.notes[ENCLOSED] += 1
    else:
        result.notes[WITHOUT_BOX] += 1
        return
    image.rows.append((number, result.class_of(shape["label"].strip()), *box))


def _points(value: object) -> list[tuple[float, float]]:
    """Points as pairs of numbers; empty for anything else."""
    if not isinstance(value, list) or not all(isinstance(point, list) and len(point) == 2 for point in value):
        return []
    return [(number_of(x), number_of(y)) for x, y in value]


def _box_around(value: object) -> Box:
    points = _points(value)
    return enclosing_box((x for x, _ in points), (y for _, y in points))


def _circle(value: object) -> Box:
    """The box around a circle, given by its center and a point on it."""
    points = _points(value)
    if len(points) != 2:
        return NO_BOX
    (cx, cy), (x, y) = points
    side = 2 * ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
    return cx, cy, side, side
