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


def cvat_document(drawn: Sequence[Drawn]) -> str:
    labels = "".join(f"<label><name>{name}</name><type>rectangle</type></label>" for name in NAMES)
    images = "".join(
        f'<image id="{i}" name="{image.file.name}" width="{image.size[1]}" height="{image.size[0]}">'
        + "".join(
            f'<box label="{NAMES[c]}" source="manual" occluded="0" xtl="{x1}.00" ytl="{y1}.00" xbr="{x2}.00" '
            f'ybr="{y2}.00" z_order="0"><attribute name="color">red</attribute></box>'
            for c, x1, y1, x2, y2 in image.boxes
        )
        + "</image>"
        for i, image in enumerate(drawn)
    )
    return (
        "<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>"
        f"<meta><task><labels>{labels}</labels></task></meta>{images}</annotations>"
    )


def write_cvat(drawn: Sequence[Drawn], root: Path) -> dict[str, str]:
    (root / "annotations.xml").write_text(cvat_document(drawn), encoding="utf-8")
    return {"images": "images/train", "annotations": "annotations.xml"}


def labelme_document(image: Drawn) -> dict:
    shapes = [
        {"label": NAMES[c], "points": [[x2, y1], [x1, y2]], "group_id": None, "shape_type": "rectangle", "flags": {}}
        for c, x1, y1, x2, y2 in image.boxes
    ]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"..\\images\\train\\{image.file.name}",
        "imageData": None,
        "imageHeight": image.size[0],
        "imageWidth": image.size[1],
    }


def write_labelme(drawn: Sequence[Drawn], root: Path) -> dict[str, str]:
    (root / "json").mkdir()
    for image in drawn:
        (root / f"json/{image.file.stem}.json").write_text(json.dumps(labelme_document(image)))
    return {"images": "images/train", "annotations": "json"}


WRITERS: Mapping[str, Callable[[Sequence[Drawn], Path], object]] = {
    "yolo": write_yolo,
    "coco": write_coco,
    "voc": write_voc,
    "cvat": write_cvat,
    "labelme": write_labelme,
}
