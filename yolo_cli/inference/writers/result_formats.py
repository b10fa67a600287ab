"""Detections as text: txt labels, CSV, COCO's JSON, and a JSON line a frame."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import torch

from yolo_cli.batch import Detections
from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Frame
from yolo_cli.inference.writers.output_paths import OutputPath

CSV_COLUMNS = ("source", "frame", "class_id", "class", "confidence", "x1", "y1", "x2", "y2")


@runtime_checkable
class Record(Protocol):
    """Takes frames in the order of the inputs."""

    def add(self, frame: Frame, place: OutputPath) -> None:
        """Record a frame."""
        ...

    def close(self) -> None:
        """Complete what was written."""
        ...


def label_lines(found: Detections, size: tuple[int, int], *, confidence: bool) -> str:
    """Rows `class cx cy w h [confidence]`, the box as fractions of an image of `size` (height, width)."""
    boxes = found.xyxy.double() / torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    x1, y1, x2, y2 = boxes.unbind(1)
    values = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1).tolist()
    scores = found.confidence.tolist()
    return "".join(
        f"{c} " + " ".join(f"{v:.6f}" for v in (*box, *((score,) if confidence else ()))) + "\n"
        for c, box, score in zip(found.class_id.tolist(), values, scores, strict=True)
    )


class _File:
    """A text file that is written as frames come, and complete whenever it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # File names may be any bytes; those that are no text are written as escapes, which JSON knows too.
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


class Csv:
    """predictions.csv: a row a detection, boxes in pixels."""

    def __init__(self, folder: Path) -> None:
        self._file = _File(folder / "predictions.csv")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(CSV_COLUMNS)

    def add(self, frame: Frame, place: OutputPath) -> None:
        """A row a detection of the frame."""
        found = frame.detections
        number = frame.number or ""
        for row in found.numpy().tolist():
            *box, score, class_id = row
            values = (f"{v:.2f}" for v in box)
            i = int(class_id)
            self._rows.writerow((frame.source.name, number, i, found.name(i), f"{score:.5f}", *values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Coco:
    """predictions.json: COCO's result list. An image's id is the number in its name, as in `yolo val`, else counted.

    Each entry also names its file and, in a video, the frame, which COCO's readers ignore.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _File(folder / "predictions.json")
        self._written, self._counted = 0, 0
        self._ids: set[int] = set()
        self._file.write("[")

    def add(self, frame: Frame, place: OutputPath) -> None:
        """An entry a detection of the frame."""
        image_id = self._image_id(frame)
        named: dict[str, Any] = {"file_name": place.drawn.as_posix() if frame.number else frame.source.name}
        if frame.number:
            named["frame"] = frame.number
        for entry in frame.detections.to_coco(image_id):
            self._file.write(("," if self._written else "") + "\n" + json.dumps(entry | named, ensure_ascii=False))
            self._written += 1

    def _image_id(self, frame: Frame) -> int:
        stem = frame.source.relative.stem
        if not frame.number:
            number = int(stem) if stem.isascii() and stem.isdecimal() and len(stem.lstrip("0")) <= 15 else None
            if number is not None and number not in self._ids:
                self._ids.add(number)
                return number
        # Past every number that 12-digit file names can have, and exact in the float64 of JSON readers.
        self._counted += 1
        return 10**15 + self._counted

    def close(self) -> None:
        """End the list and close the file."""
        self._file.write("\n]\n")
        self._file.close()


class JsonLines:
    """One JSON object a frame through `write`, at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def add(self, frame: Frame, place: OutputPath) -> None:
        """The frame's object."""
        found = frame.detections
        height, width = frame.size
        detections = [
            {
                "class_id": int(c),
                "name": found.name(int(c)),
                "confidence": round(s, 6),
                "xyxy": [round(v, 2) for v in b],
            }
            for *b, s, c in found.numpy().tolist()
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
        """Nothing is held open."""
