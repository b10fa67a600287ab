"""The FORMATS table: which formats are read from annotation files, and how each is recognized."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_cli.dataset.formats import coco, cvat, labelme, voc
from yolo_cli.dataset.formats.annotations import Annotations
from yolo_cli.dataset.formats.image_finder import ImageFinder
from yolo_cli.errors import UserError
from yolo_cli.io.json_file import read_json
from yolo_cli.io.xml_file import read_xml

SUFFIXES = frozenset((".json", ".xml"))
MAX_BYTES = 4 * 2**30
_TRIED = 20  # files


@dataclass(frozen=True, slots=True)
class Format:
    """A format of annotation files. `recognize` takes the content of a file: a JSON value or an XML root.

    `read` takes the files, the images, and the content of files that have been parsed already.
    """

    title: str
    suffix: str
    recognize: Callable[[Any], bool]
    read: Callable[[Sequence[str], ImageFinder, Mapping[str, Any]], Annotations]


@dataclass(frozen=True, slots=True)
class Recognized:
    """A format, and the file by whose content it was recognized."""

    format: Format
    file: str
    content: Any


FORMATS: Mapping[str, Format] = {
    "coco": Format("COCO JSON", ".json", coco.is_coco, coco.read),
    "labelme": Format("LabelMe JSON", ".json", labelme.is_labelme, labelme.read),
    "cvat": Format("CVAT XML", ".xml", cvat.is_cvat, cvat.read),
    "voc": Format("Pascal VOC XML", ".xml", voc.is_voc, voc.read),
}


def recognize(files: Sequence[str]) -> Recognized | None:
    """The format of annotation files, by the content of the first of a few that has a known one; None if none has.

    Raises UserError where none of the files can be read.
    """
    errors = []
    for file in files[:_TRIED]:
        suffix = os.path.splitext(file)[1].lower()
        try:
            read = read_json if suffix == ".json" else read_xml
            content = read(Path(file), max_bytes=MAX_BYTES)
        except UserError as error:
            errors.append(error)
            continue
        for known in FORMATS.values():
            if known.suffix == suffix and known.recognize(content):
                return Recognized(known, file, content)
    if errors and len(errors) == len(files[:_TRIED]):
        raise errors[0]
    return None
