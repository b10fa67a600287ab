"""Writes the drawn dataset in each format, as the tools that define the formats do."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.dataset.formats.conftest import NAMES, Drawn


def write_yolo(drawn: Sequence[Drawn], root: Path) -> str:
    folder = root / "labels/train"
    folder.mkdir(parents=True)
    for image in drawn:
        h, w = image.size
        rows = [f"{c} {(x1 + x2) / 2 / w!r} {(y1 + y2) / 2 / h!r} {(x2 - x1) / w!r} {(y2 - y1) / h!r}\n"
                for c, x1, y1, x2, y2 in image.boxes]  # fmt: skip
        if rows:
            (folder / f"{image.file.stem}.txt").write_text("".join(rows))
    return "images/train"


def coco_document(drawn: Sequence[Drawn]) -> dict:
    """Category ids have gaps, and are not in order."""
    ids = {0: 3, 1: 18, 2: 44}
    annotations = [
        {"id": i, "image_id": 100 + number, "category_id": ids[c], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, (number, (c, x1, y1, x2, y2)) in enumerate(
            ((number, box) for number, image in enumerate(drawn) for box in image.boxes), 1
        )
    ]
    return {
        "images": [
            {"id": 100 + i, "file_name": image.file.name, "height": image.size[0], "width": image.size[1]}
            for i, image in enumerate(drawn)
        ],
        "annotations": annotations,
        "categories": [{"id": ids[c], "name": NAMES[c]} for c in (2, 0, 1)],
    }


def write_coco(drawn: Sequence[Drawn], root: Path) -> str:
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(coco_document(drawn)))
    return "annotations/instances_train.json"


def voc_document(image: Drawn, **edges: str) -> str:
    objects = "".join(
        f"<object><name>{NAMES[c]}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for c, x1, y1, x2, y2 in image.boxes
    )
    return (
        f"<annotation><folder>images</folder><filename>{escape(image.file.name)}</filename>"
        f"<source><database>Unknown</database></source>"
        f"<size><width>{image.size[1]}</width><height>{image.size[0]}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{objects}</annotation>"
    )


def write_voc(drawn: Sequence[Drawn], root: Path) -> dict[str, str]:
    (root / "Annotations").mkdir()
    for image in drawn:
        (root / f"Annotations/{image.file.stem}.xml").write_text(voc_document(image), encoding="utf-8")
    return {"images": "images/train", "annotations": "Annotations"}


WRITERS: Mapping[str, Callable[[Sequence[Drawn], Path], object]] = {
    "yolo": write_yolo,
    "coco": write_coco,
    "voc": write_voc,
}
