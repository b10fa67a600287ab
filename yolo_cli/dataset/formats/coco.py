"""COCO JSON: `images`, `annotations` and `categories` in one file, boxes as x, y, width, height in pixels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo_cli.dataset.entries import SplitEntry
from yolo_cli.dataset.formats.annotations import (
    CROWDS,
    ENCLOSED,
    NO_BOX,
    AnnotatedImage,
    Annotations,
    Box,
    enclosing_box,
    number_of,
    size_of,
)
from yolo_cli.dataset.formats.image_finder import ImageFinder
from yolo_cli.dataset.formats.records import Record, Values, pixel_values
from yolo_cli.dataset.ignore_regions import classes_of, crowd_code
from yolo_cli.errors import UserError
from yolo_cli.io.json_file import read_json

MAX_BYTES = 4 * 2**30
IMAGES = "images"


def is_coco(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" in document


def read(files: Sequence[str], images: ImageFinder, opened: Mapping[str, Any]) -> Annotations:
    """Read COCO JSON. A row of a problem is the id of an annotation.

    Classes are the categories in the order of their ids, which may have gaps. Raises UserError for a file that is not
    COCO JSON.
    """
    source, document = _open(files, opened)
    result = Annotations(declared=True)
    try:
        classes = _read_categories(document, result)
        by_id = _read_images(document["images"], source, images, result)
        _read_boxes(document["annotations"], source, by_id, classes, result)
    except (TypeError, AttributeError, KeyError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else "an entry of another type than COCO has"
        raise UserError(f"is no COCO JSON: {detail}", where=source) from None
    return result


def _open(files: Sequence[str], opened: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The one COCO file among JSON files, and its content. Raises UserError where there is none, or several."""
    found = []
    for file in files:
        try:
            document = opened[file] if file in opened else read_json(Path(file), max_bytes=MAX_BYTES)
        except UserError:
            if len(files) == 1:
                raise
            continue
        if is_coco(document):
            found.append((file, document))
    if not found:
        raise UserError("is no COCO JSON (an object with images, annotations and categories)", where=files[0])
    if len(found) > 1:
        first, second = (Path(file).name for file, _ in found[:2])
        what = f"{len(found)} COCO files, such as {first} and {second}"
        raise UserError(what, where=Path(files[0]).parent, fix="name one of them as `annotations`")
    return found[0]


def _read_categories(document: Mapping[str, Any], result: Annotations) -> dict[object, int]:
    """The class of each category id."""
    categories = document.get("categories") or []
    used = {row.get("category_id") for row in document["annotations"]}
    parents = {category.get("supercategory") for category in categories if category["id"] in used}
    classes: dict[object, int] = {}
    for category in sorted(categories, key=lambda category: category["id"]):
        name = str(category["name"])
        # Roboflow adds the group of all classes as category 0.
        if category["id"] not in used and category["id"] == 0 and name in parents:
            continue
        if category["id"] in classes:
            raise UserError(f"category id {category['id']} occurs twice", where="categories")
        classes[category["id"]] = result.class_of(name)
    return classes


def _read_images(
    entries: Sequence[Mapping[str, Any]], source: str, images: ImageFinder, result: Annotations
) -> dict[object, AnnotatedImage | None]:
    """The image of each image id; None for one that was reported."""
    by_id: dict[object, AnnotatedImage | None] = {}
    by_file: dict[str, AnnotatedImage] = {}
    for entry in entries:
        name = str(entry["file_name"])
        if entry["id"] in by_id:
            result.problems.append((source, 0, f"{name}: image id {entry['id']} occurs twice; the first one is used"))
            continue
        try:
            file = images.find(name)
        except UserError as error:
            result.problems.append((source, 0, error.what))
            by_id[entry["id"]] = None
            continue
        image = by_file.get(file)
        if image is None:
            image = AnnotatedImage(file, source, size_of(entry.get("height"), entry.get("width")))
            by_file[file] = image
            result.images.append(image)
        else:
            result.notes["images that are listed twice, whose boxes are joined"] += 1
        by_id[entry["id"]] = image
    return by_id


def _read_boxes(
    rows: Sequence[Mapping[str, Any]],
    source: str,
    by_id: Mapping[object, AnnotatedImage | None],
    classes: Mapping[object, int],
    result: Annotations,
) -> None:
    for position, row in enumerate(rows, 1):
        given = row.get("id")
        number = given if isinstance(given, int) and 0 < given < 2**63 else position
        image_id, category = row["image_id"], row["category_id"]
        if image_id not in by_id:
            result.problems.append((source, number, f"image id {image_id} is not among the images"))
        elif category not in classes:
            result.problems.append((source, number, f"category id {category} is not among the categories"))
        elif (image := by_id[image_id]) is None:
            continue  # the image is missing, which is reported once
        elif row.get("iscrowd"):
            result.notes[CROWDS] += 1
            image.rows.append((number, crowd_code(classes[category]), *_box(row, result)))
        else:
            image.rows.append((number, classes[category], *_box(row, result)))


def _box(row: Mapping[str, Any], result: Annotations) -> Box:
    """The box of an annotation: its `bbox`, else the one around its polygons; nan where it has neither."""
    bbox = row.get("bbox")
    if isinstance(bbox, list) and len(bbox) == 4:
        x, y, w, h = map(number_of, bbox)
        return x + w / 2, y + h / 2, w, h
    polygons = row.get("segmentation")
    if bbox or not isinstance(polygons, list):
        return NO_BOX
    points = [value for polygon in polygons if isinstance(polygon, list) for value in polygon]
    result.notes[ENCLOSED] += 1
    return enclosing_box(map(number_of, points[::2]), map(number_of, points[1::2]))


def write(records: Sequence[Record], split: str, names: Sequence[str], folder: Path) -> SplitEntry:
    """Write `annotations/SPLIT.json`. Category ids are class numbers from 1, as COCO's own begin at 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        height, width = record.size
        images.append({"id": number, "file_name": record.name, "width": width, "height": height})
        boxes = pixel_values(record, _corner, _center)
        for code, box in zip(record.classes.tolist(), boxes, strict=True):
            for class_id in classes_of(code, len(names)):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": class_id + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": int(code < 0),
                    }
                )
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations" / f"{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="ascii")
    return SplitEntry(f"{IMAGES}/{split}", f"annotations/{split}.json")


def _corner(boxes: Values) -> Values:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def _center(values: Values) -> Values:
    return np.concatenate([values[:, :2] + values[:, 2:] / 2, values[:, 2:]], axis=1)
