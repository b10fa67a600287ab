"""Small evaluations made by hand, with real image files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolo_cli.evaluation.eval_data import EvalData, GroundTruth, Predictions
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation

SIZE = (100, 200)  # height, width of every image

Truth = tuple[int, int, tuple[float, float, float, float]]  # image, class, left, top, width, height
Found = tuple[int, int, tuple[float, float, float, float], float]  # and confidence


def data_of(truth: Sequence[Truth], found: Sequence[Found], images: int = 1, crowd: Sequence[bool] = ()) -> EvalData:
    """Ground truth and predictions; both sorted by image."""
    truth, found = sorted(truth, key=lambda row: row[0]), sorted(found, key=lambda row: row[0])

    def column(rows: Sequence, i: int, dtype: type) -> np.ndarray:
        return np.array([row[i] for row in rows], dtype=dtype)

    def boxes(rows: Sequence) -> np.ndarray:
        return np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4)

    flags = np.array(list(crowd) or [False] * len(truth), dtype=bool)
    return EvalData(
        np.arange(images),
        np.array([SIZE] * images, dtype=np.int64).reshape(-1, 2),
        GroundTruth(column(truth, 0, np.int64), column(truth, 1, np.int64), boxes(truth), flags),
        Predictions(column(found, 0, np.int64), column(found, 1, np.int64), boxes(found), column(found, 3, np.float64)),
    )


def saved_of(data: EvalData, names: Sequence[str], folder: Path, files: Sequence[str] = ()) -> SavedEvaluation:
    """An evaluation of images that are written to `folder`."""
    folder.mkdir(exist_ok=True, parents=True)
    count = len(data.image_ids)
    paths = [folder / (files[i] if files else f"{i}.jpg") for i in range(count)]
    random = np.random.default_rng(0)
    for path in paths:
        content = cv2.imencode(".jpg", random.integers(0, 255, (*SIZE, 3), dtype=np.uint8))[1]
        path.write_bytes(content.tobytes())
    return SavedEvaluation(
        data,
        tuple(names),
        "val",
        "0" * 64,
        tuple(map(str, paths)),
        np.zeros((count, 3), dtype=np.int64),
        np.arange(count),
        np.full(count, 0.5),
    )
