"""Ground truth and predictions as COCO JSON, for evaluation by other tools.

Coordinates and confidences are not rounded, so that other tools get the same values as our evaluator.
"""

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from yolo_cli.errors import UserError
from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.io.atomic import atomic_path
from yolo_cli.progress import Reporter

# The category ids of COCO's 80 detection classes.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_ROWS_AT_ONCE = 100_000
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED)


def numeric_image_id(stem: str) -> int | None:
    """The number that a file name consists of, as in COCO; None for other names.

    At most 15 digits, since JSON readers and evaluators use float64 for ids.
    """
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem.lstrip("0")) <= 15 else None


def image_ids(paths: Iterable[Path]) -> list[int]:
    """A distinct id per image: the number that is its file name, as in COCO.

    Other images, and those with a number that occurred before, get the numbers after the largest one, in order.
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
    data: EvalData, names: Sequence[str], file_names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """The ground truth as a COCO dataset. Category ids are class ids; `file_names` are by image id."""
    gt, ids = data.ground_truth, data.image_ids.tolist()
    files = file_names or {}
    rows = zip(gt.image.tolist(), gt.class_id.tolist(), gt.xywh.tolist(), gt.crowd.tolist(), strict=True)
    return {
        "info": {},
        "images": [
            {"id": i, "file_name": files.get(i, ""), "width": width, "height": height}
            for i, (height, width) in zip(ids, data.sizes.tolist(), strict=True)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                # From 1: pycocotools uses the annotation id 0 for no match.
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


def coco_predictions(data: EvalData, rows: slice = slice(None)) -> list[dict[str, Any]]:
    """The predictions, or some of them, as a list of COCO results."""
    pred = data.predictions
    columns = (data.image_ids[pred.image[rows]], pred.class_id[rows], pred.xywh[rows], pred.confidence[rows])
    return [
        {"image_id": image_id, "category_id": class_id, "bbox": box, "score": score}
        for image_id, class_id, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


class PredictionsFile:
    """predictions.json, written image by image; it appears complete or not at all.

    Raises UserError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = ExitStack()
        self._separator = "["

    def __enter__(self) -> "PredictionsFile":
        with self._errors():
            temporary = self._open.enter_context(atomic_path(self.path))
            self._file = self._open.enter_context(temporary.open("w", encoding="utf-8"))
        return self

    def write(self, data: EvalData) -> None:
        """Add the predictions of more images."""
        # `json.dump` to a file does not use the C encoder and takes ten times as long.
        for start in range(0, len(data.predictions.image), _ROWS_AT_ONCE):
            text = json.dumps(coco_predictions(data, slice(start, start + _ROWS_AT_ONCE)))
            with self._errors():
                self._file.write(self._separator + text[1:-1])
            self._separator = ", "

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._errors():
            if kind is None:
                self._file.write("[]" if self._separator == "[" else "]")
            self._open.__exit__(kind, error, trace)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write: {error.strerror}", where=self.path) from error


def read_predictions(
    path: Path, image_ids: Sequence[int], classes: int, reporter: Reporter | None = None
) -> Predictions:
    """A COCO result file as predictions on images with these ids; category ids are class ids, or those of COCO.

    COCO's 80 classes have category ids from 1 to 90 with gaps; they are meant if an id is 80 or more. `reporter` gets
    which was taken. Raises UserError for a file that is no such list, or has images or classes that the dataset does
    not have.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read as JSON ({error})", where=path) from None
    try:
        if not isinstance(rows, list):
            raise TypeError
        image = np.array([operator.index(row["image_id"]) for row in rows], dtype=np.int64)
        category = np.array([operator.index(row["category_id"]) for row in rows], dtype=np.int64)
        xywh = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(len(rows), 4)
        confidence = np.array([row["score"] for row in rows], dtype=np.float64)
    except (TypeError, KeyError, ValueError, OverflowError):
        fix = "give a list of {image_id, category_id, bbox: [x, y, width, height], score}"
        raise UserError("is no list of COCO results", where=path, fix=fix) from None
    if not np.isfinite(xywh).all() or not np.isfinite(confidence).all():
        raise UserError("has numbers that are not finite", where=path)
    if (negative := np.flatnonzero((xywh[:, 2:] < 0).any(axis=1))).size:
        raise UserError(f"result {negative[0]} has a negative width or height", where=path)
    if classes == len(COCO_CATEGORY_IDS) and len(rows):
        published = category.max() >= classes
        if reporter:
            taken = "COCO's (1 to 90)" if published else "class ids (0 to 79), since none is 80 or more"
            reporter.info(f"{path}: category ids are taken as {taken}")
    else:
        published = False
    if published:
        category = np.where(np.isin(category, COCO_CATEGORY_IDS), np.searchsorted(COCO_CATEGORY_IDS, category), -1)
    if len(rows) and not 0 <= category.min() <= category.max() < classes:
        raise UserError(
            f"has category ids outside 0 to {classes - 1}", where=path, fix="give the dataset it was made on"
        )
    ids = np.asarray(image_ids, dtype=np.int64)
    order = np.argsort(ids)
    at = order[np.searchsorted(ids, image, sorter=order).clip(max=len(ids) - 1)] if len(ids) else image
    if (unknown := image[ids[at] != image]).size:
        raise UserError(f"has image id {unknown[0]}, which the dataset does not have", where=path)
    by_image = np.argsort(at, kind="stable")
    return Predictions(at[by_image], category[by_image], xywh[by_image], confidence[by_image])
