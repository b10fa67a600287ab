"""Pascal VOC XML: one file per image, boxes as the coordinates of their edges in pixels."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from yolo_cli.dataset.entries import SplitEntry
from yolo_cli.dataset.formats.annotations import (
    ENCLOSED,
    NO_BOX,
    NOT_LISTED,
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
from yolo_cli.dataset.formats.records import Record, Values, pixel_values
from yolo_cli.dataset.ignore_regions import classes_of
from yolo_cli.errors import UserError
from yolo_cli.io.xml_file import read_xml

MAX_BYTES = 64 * 2**20
IMAGES = "JPEGImages"

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML cannot hold


def is_voc(root: Element) -> bool:
    return root.tag == "annotation"


def read(files: Sequence[str], images: ImageFinder, opened: Mapping[str, Any]) -> Annotations:
    """Read VOC XML. A row of a problem is the position of an object in its file.

    Edges are positions between pixels, so that xmin 0 and xmax `width` are the whole image. In the files of the VOC
    challenges they are numbers of pixels, from 1: there, 1 is subtracted from xmin and ymin.
    """
    result = Annotations()
    described = set()
    for file in files:
        try:
            root = opened[file] if file in opened else read_xml(Path(file), max_bytes=MAX_BYTES)
            if not is_voc(root):
                raise UserError(f"is no VOC XML: its root is <{root.tag[:40]}>, not <annotation>")
            image = AnnotatedImage(_find_image(file, root, images), file, _size(root))
        except UserError as error:
            line = error.where.rpartition(":")[2]
            result.problems.append((file, int(line) if line.isdecimal() else 0, error.what))
            continue
        if image.file in described:
            result.problems.append((file, 0, f"{image.file} has another annotation file, which is used"))
            continue
        described.add(image.file)
        result.images.append(image)
        offset = 1.0 if _numbers_pixels(root) else 0.0
        for number, entry in enumerate(root.iter("object"), 1):
            name = (entry.findtext("name") or "").strip()
            if not name:
                result.problems.append((file, number, "object without a name"))
                continue
            image.rows.append((number, result.class_of(name), *_box(entry, offset, result)))
            if (entry.findtext("difficult") or "").strip() == "1":
                image.difficult += (number,)
    if left_out := len(images.files) - len(described):
        result.notes[NOT_LISTED] += left_out
    return result


def _find_image(file: str, root: Element, images: ImageFinder) -> str:
    """The image with the stem of the XML file, else the one that it names.

    Images are often renamed together with their XML files, and `filename` stays.
    """
    stem, folders = Path(file).stem, Path(file).parent.parts
    try:
        return images.find_stem(stem, folders)
    except UserError:
        name = (root.findtext("filename") or "").strip()
        path = (root.findtext("path") or "").strip() or name
        for given in (path, name):
            if given:
                try:
                    return images.find(given)
                except UserError:
                    continue
        raise UserError(f"no image {stem}.* or {name or '(no filename)'}") from None


def _size(root: Element) -> tuple[int, int] | None:
    return size_of(root.findtext("size/height") or "", root.findtext("size/width") or "")


def _numbers_pixels(root: Element) -> bool:
    """Whether the file is one of the VOC challenges, whose tools count pixels from 1."""
    return (root.findtext("source/database") or "").strip().startswith("The VOC20")


def _box(entry: Element, offset: float, result: Annotations) -> Box:
    """The box of an object: `bndbox`, the turned `robndbox` of roLabelImg, or the box around a polygon."""
    if (box := entry.find("bndbox")) is not None:
        x1, y1, x2, y2 = (number_of((box.findtext(edge) or "").strip()) for edge in ("xmin", "ymin", "xmax", "ymax"))
        return box_of_edges(x1 - offset, y1 - offset, x2, y2)
    if (turned := entry.find("robndbox")) is not None:
        cx, cy, w, h, radians = (
            number_of((turned.findtext(key) or "").strip()) for key in ("cx", "cy", "w", "h", "angle")
        )
        result.notes[ENCLOSED] += 1
        return turned_box((cx, cy, w, h), math.degrees(radians))
    if (polygon := entry.find("polygon")) is not None:
        result.notes[ENCLOSED] += 1
        xs, ys = _polygon_points(polygon)
        return enclosing_box(xs, ys)
    return NO_BOX


def _polygon_points(polygon: Element) -> tuple[list[float], list[float]]:
    """Points as `<pt><x>…</x><y>…</y></pt>` or as `<x1>…</x1><y1>…</y1><x2>…`."""
    if points := polygon.findall("pt"):
        return [number_of(point.findtext("x")) for point in points], [
            number_of(point.findtext("y")) for point in points
        ]
    xs = [number_of(child.text) for child in polygon if child.tag.startswith("x")]
    ys = [number_of(child.text) for child in polygon if child.tag.startswith("y")]
    return xs, ys


def write(records: Sequence[Record], split: str, names: Sequence[str], folder: Path) -> SplitEntry:
    """Write `Annotations/SPLIT/*.xml` and `ImageSets/Main/SPLIT.txt`; images are in `JPEGImages/SPLIT`.

    Edges get decimals where whole pixels would move a box. Regions to be ignored become difficult objects.
    """
    annotations = folder / "Annotations" / split
    stems = []
    for record in records:
        stem = os.path.splitext(record.name)[0]
        stems.append(f"{split}/{stem}")
        path = annotations / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_document(record, split, names))
    sets = folder / "ImageSets" / "Main" / f"{split}.txt"
    sets.parent.mkdir(parents=True, exist_ok=True)
    sets.write_bytes("".join(f"{stem}\n" for stem in stems).encode("utf-8", "surrogateescape"))
    regions = any((record.classes < 0).any() for record in records)
    return SplitEntry(f"{IMAGES}/{split}", f"Annotations/{split}", ignore_difficult=regions)


def _document(record: Record, split: str, names: Sequence[str]) -> bytes:
    root = Element("annotation")
    _add(root, "folder", f"{IMAGES}/{split}")
    _add(root, "filename", record.name)
    size = SubElement(root, "size")
    for tag, value in (("width", record.size[1]), ("height", record.size[0]), ("depth", 3)):
        _add(size, tag, value)
    _add(root, "segmented", 0)
    values = pixel_values(record, _edges, _centers)
    for code, box in zip(record.classes.tolist(), values, strict=True):
        for class_id in classes_of(code, len(names)):
            entry = SubElement(root, "object")
            _add(entry, "name", names[class_id])
            _add(entry, "pose", "Unspecified")
            _add(entry, "truncated", 0)
            _add(entry, "difficult", int(code < 0))
            edges = SubElement(entry, "bndbox")
            for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                _add(edges, tag, edge)
    indent(root)
    return tostring(root, encoding="utf-8")


def _add(parent: Element, tag: str, value: object) -> None:
    text = _NO_XML.sub("\ufffd", str(value))  # the reader finds images by the name of the XML file
    SubElement(parent, tag).text = text


def _edges(boxes: Values) -> Values:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _centers(values: Values) -> Values:
    return np.concatenate([(values[:, :2] + values[:, 2:]) / 2, values[:, 2:] - values[:, :2]], axis=1)
