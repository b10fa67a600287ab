"""Detections as text: txt labels, CSV, COCO JSON, and one JSON object per frame."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import torch

from yolo_cli.batch import Detections
from yolo_cli.errors import UserError
from yolo_cli.evaluation.coco_json import numeric_image_id
from yolo_cli.inference.sources.frames import Frame
from yolo_cli.inference.writers.output_paths import OutputPath

CSV_COLUMNS = ("source", "frame", "class_id", "class", "confidence", "x1", "y1", "x2", "y2")


@runtime_checkable
class ResultFormat(Protocol):
    """A file or stream of the results of all frames, which come in input order."""

    def add(self, frame: Frame, path: OutputPath) -> None:
        """Append the detections of a frame."""
        ...

    def close(self) -> None:
        """Complete what was written."""
        ...


def label_lines(found: Detections, size: tuple[int, int], *, confidence: bool) -> str:
    """Lines `class cx cy w h [confidence]`, the box as fractions of an image of `size` (height, width)."""
    boxes = found.xyxy.double() / torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    x1, y1, x2, y2 = boxes.unbind(1)
    values = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1).tolist()
    scores = found.confidence.tolist()
    return "".join(
        f"{c} " + " ".join(f"{v:.6f}" for v in (*box, *((score,) if confidence else ()))) + "\n"
        for c, box, score in zip(found.class_id.tolist(), values, scores, strict=True)
    )


class _TextFile:
    """A text file that is open while frames come. Its methods raise UserError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # File names may be any bytes. Those that are not text are written as escapes, which JSON has too.
            self._file: TextIO = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=path) from None

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=self.path) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=self.path) from None


class CsvWriter:
    """predictions.csv: one row per detection, boxes in pixels."""

    def __init__(self, folder: Path) -> None:
        self._file = _TextFile(folder / "predictions.csv")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(CSV_COLUMNS)

    def add(self, frame: Frame, path: OutputPath) -> None:
        found = frame.detections
        number = frame.number or ""
        for *box, score, class_id in found.numpy().tolist():
            i = int(class_id)
            pixels = (f"{v:.2f}" for v in box)
            self._rows.writerow((frame.source.name, number, i, found.name(i), f"{score:.5f}", *pixels))

    def close(self) -> None:
        self._file.close()


class CocoWriter:
    """predictions.json: a COCO result list. An image's id is the number in its file name, as in `yolo val`, or new.

    Each entry also has the file name and, in a video, the frame number, which readers of COCO results ignore.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _TextFile(folder / "predictions.json")
        self._entries, self._new_ids = 0, 0
        self._ids: set[int] = set()
        self._file.write("[")

    def add(self, frame: Frame, path: OutputPath) -> None:
        image_id = self._image_id(frame)
        extra: dict[str, Any] = {"file_name": path.drawn.as_posix() if frame.number else frame.source.name}
        if frame.number:
            extra["frame"] = frame.number
        for entry in frame.detections.to_coco(image_id):
            self._file.write(("," if self._entries else "") + "\n" + json.dumps(entry | extra, ensure_ascii=False))
            self._entries += 1

    def _image_id(self, frame: Frame) -> int:
        number = None if frame.number else numeric_image_id(frame.source.relative.stem)
        if number is not None and number not in self._ids:
            self._ids.add(number)
            return number
        # Larger than every numeric id, and exact in the float64 of JSON readers.
        self._new_ids += 1
        return 10**15 + self._new_ids

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


class JsonLinesWriter:
    """One JSON object per frame, passed to `write` at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def add(self, frame: Frame, path: OutputPath) -> None:
        found = frame.detections
        height, width = frame.size
        detections = [
            {
                "class_id": int(class_id),
                "name": found.name(int(class_id)),
                "confidence": round(score, 6),
                "xyxy": [round(v, 2) for v in box],
            }
            for *box, score, class_id in found.numpy().tolist()
        ]
        content = {
            "source": frame.source.name,
            "frame": frame.number or None,
            "width": width,
            "height": height,
            "detections": detections,
            "milliseconds": {name: round(value, 3) for name, value in frame.milliseconds.items()},
        }
        self._write(json.dumps(content, ensure_ascii=False))

    def close(self) -> None:
        """Nothing is open."""
