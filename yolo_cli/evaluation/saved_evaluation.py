"""evaluation.npz: ground truth and predictions of a run, from which reports and comparisons need no model."""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.dataset.images import decode_image
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.scan import read_range
from yolo_cli.errors import UserError
from yolo_cli.evaluation.eval_data import EvalData, GroundTruth, Predictions
from yolo_cli.io.atomic import write_file

FILE = "evaluation.npz"
FORMAT = 1


@dataclass(frozen=True)
class SavedEvaluation:
    """What an evaluation saw and found. Rows of images are in the order of `data`."""

    data: EvalData
    names: tuple[str, ...]  # of the classes
    split: str
    fingerprint: str  # of the split
    paths: tuple[str, ...]  # of the images
    spans: Int[np.ndarray, "images 3"]  # place of an image in its tar shard, as in LabelIndex; zeros for a file
    position: Int[np.ndarray, " images"]  # in the split, by which evaluations of the same split are joined
    brightness: Float[np.ndarray, " images"]  # mean luma, 0 … 1; nan if not measured

    @staticmethod
    def of(
        data: EvalData,
        index: LabelIndex,
        image_ids: Sequence[int] | None,
        *,
        names: Sequence[str],
        split: str,
        brightness: Float[np.ndarray, " n"] | None = None,
    ) -> "SavedEvaluation":
        """The evaluation of a split. `image_ids` and `brightness` are by position in the index."""
        ids = np.arange(len(index)) if image_ids is None else np.asarray(image_ids, dtype=np.int64)
        by_id = np.argsort(ids)
        position = by_id[np.searchsorted(ids, data.image_ids, sorter=by_id)] if len(ids) else by_id
        return SavedEvaluation(
            data,
            tuple(names),
            split,
            index.fingerprint,
            tuple(index.name(i) for i in position.tolist()),
            index.spans[position] if len(index.spans) else np.zeros((len(position), 3), dtype=np.int64),
            position,
            np.full(len(position), np.nan) if brightness is None else brightness[position],
        )

    def size_of(self, i: int) -> tuple[int, int]:
        """(height, width) of image i."""
        height, width = self.data.sizes[i].tolist()
        return height, width

    def image(self, i: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of image i: RGB, (height, width, 3) uint8, of the size that was evaluated.

        With `min_size` (height, width) they may be fewer, as in `read_image`, which is faster.
        Raises UserError where the file is gone, cannot be read or has changed its size.
        """
        path, (shard, start, length) = self.paths[i], self.spans[i].tolist()
        try:
            if shard:
                content = read_range(os.fsdecode(os.fsencode(path)[:shard]), start, length)
            else:
                content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=path) from None
        pixels = decode_image(content, path, min_size)
        (height, width), (rows, columns) = self.data.sizes[i].tolist(), pixels.shape[:2]
        # A smaller image must have the same aspect ratio, up to the rounding of its sides.
        same_aspect = abs(rows * width - columns * height) <= max(height, width)
        if not (same_aspect if min_size else (rows, columns) == (height, width)):
            raise UserError("has changed its size since the evaluation", where=path)
        return pixels


def save_evaluation(folder: Path, saved: SavedEvaluation) -> None:
    """Write evaluation.npz into a run folder. Raises UserError where it cannot be written.

    Predictions are stored as corners in float32 where that is exact, as it is for what a network computed.
    """
    data = saved.data
    gt, pred = data.ground_truth, data.predictions
    about = {"format": FORMAT, "names": saved.names, "split": saved.split, "fingerprint": saved.fingerprint}
    corners = np.concatenate([pred.xywh[:, :2], pred.xywh[:, :2] + pred.xywh[:, 2:]], axis=1)
    boxes = _if_exact(corners)
    as_corners = boxes.dtype == np.float32

    with write_file(folder / FILE, what=FILE) as file:
        np.savez(
            file,
            about=_bytes(json.dumps(about).encode()),
            paths=_bytes(b"\0".join(os.fsencode(path) for path in saved.paths)),
            image_ids=data.image_ids,
            sizes=data.sizes,
            spans=saved.spans,
            position=saved.position,
            brightness=saved.brightness.astype(np.float32),
            gt_image=gt.image.astype(np.int32),
            gt_class=gt.class_id.astype(np.int32),
            gt_xywh=gt.xywh,
            gt_crowd=gt.crowd,
            image=pred.image.astype(np.int32),
            class_id=pred.class_id.astype(np.int32),
            as_corners=np.array(as_corners),
            boxes=boxes if as_corners else pred.xywh,
            confidence=_if_exact(pred.confidence),
        )


def load_evaluation(folder: Path) -> SavedEvaluation:
    """Read evaluation.npz of a run folder. Raises UserError for a file that is missing or damaged."""
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["format"] != FORMAT:
                raise UserError("was written by another version", where=path, fix="run yolo val again")
            xywh = stored["boxes"].astype(np.float64)
            if stored["as_corners"]:
                xywh = np.concatenate([xywh[:, :2], xywh[:, 2:] - xywh[:, :2]], axis=1)
            data = EvalData(
                stored["image_ids"],
                stored["sizes"],
                GroundTruth(
                    stored["gt_image"].astype(np.int64),
                    stored["gt_class"].astype(np.int64),
                    stored["gt_xywh"],
                    stored["gt_crowd"],
                ),
                Predictions(
                    stored["image"].astype(np.int64),
                    stored["class_id"].astype(np.int64),
                    xywh,
                    stored["confidence"].astype(np.float64),
                ),
            )
            paths = [os.fsdecode(name) for name in stored["paths"].tobytes().split(b"\0")] if len(data.sizes) else []
            return SavedEvaluation(
                data,
                tuple(map(str, about["names"])),
                str(about["split"]),
                str(about["fingerprint"]),
                tuple(paths),
                stored["spans"],
                stored["position"],
                stored["brightness"].astype(np.float64),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot be read ({error})", where=path, fix="run yolo val again") from None


def _if_exact(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The values in float32 if that changes none of them."""
    short = values.astype(np.float32)
    return short if np.array_equal(short, values) else values


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)
