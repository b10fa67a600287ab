"""Truths and detections as COCO JSON, so that other tools can check our numbers.

Box coordinates and confidences go out unrounded: whoever evaluates the files sees the very numbers that we evaluated.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.evaluation.eval_data import Columns


def numeric_image_id(stem: str) -> int | None:
    """The number that a file name consists of, as COCO names its files; None for other names.

    At most 15 digits, which pass exactly through the float64 in which JSON readers and evaluators keep ids.
    """
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem.lstrip("0")) <= 15 else None


def image_ids(paths: Sequence[Path]) -> list[int]:
    """A distinct number for each image: its file name's, where that is one, as COCO names its files.

    Names that are no number, or whose number is taken, get the numbers that follow the largest one, in order.
    """
    ids: list[int | None] = []
    taken: set[int] = set()
    for path in paths:
        number = numeric_image_id(path.stem)
        ids.append(None if number in taken else number)
        if number is not None:
            taken.add(number)
    result, following = [], max(taken, default=0) + 1
    for number in ids:
        result.append(following if number is None else number)
        following += number is None
    return result


def coco_ground_truth(
    data: Columns, names: Sequence[str], file_names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """The truths as a COCO data set; category ids are class ids, and `file_names` are by image id."""
    truths, ids = data.truths, data.image_ids.tolist()
    files = file_names or {}
    rows = zip(
        truths.image.tolist(), truths.class_id.tolist(), truths.xywh.tolist(), truths.crowd.tolist(), strict=True
    )
    return {
        "info": {},
        "images": [
            {"id": i, "file_name": files.get(i, ""), "width": width, "height": height}
            for i, (height, width) in zip(ids, data.sizes.tolist(), strict=True)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                # pycocotools takes an annotation whose id is 0 for no match at all.
                "id": number,
                "image_id": ids[image],
                "category_id": class_id,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            for number, (image, class_id, box, crowd) in enumerate(rows, start=1)
        ],
    }


def coco_predictions(data: Columns) -> list[dict[str, Any]]:
    """The detections as a COCO result list."""
    found, ids = data.found, data.image_ids.tolist()
    rows = zip(
        found.image.tolist(), found.class_id.tolist(), found.xywh.tolist(), found.confidence.tolist(), strict=True
    )
    return [
        {"image_id": ids[image], "category_id": class_id, "bbox": box, "score": score}
        for image, class_id, box, score in rows
    ]


def write_predictions(path: Path, data: Columns) -> None:
    """Write `predictions.json`. Raises `UserError` where that is not possible."""
    try:
        # In one piece: `json.dump` into a file would not use the encoder written in C, and take ten times as long.
        path.write_text(json.dumps(coco_predictions(data)), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=path) from error
