"""Drawn pictures, crops and label files of one frame; videos of drawn frames."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from yolo_cli.drawing import Style, draw_boxes, encode
from yolo_cli.errors import UserError
from yolo_cli.inference.sources.frames import Frame, Source
from yolo_cli.inference.sources.video import MIN_FPS, open_capture, opencv_name
from yolo_cli.inference.writers.output_paths import OutputPath
from yolo_cli.inference.writers.result_formats import label_lines

_LONGEST_SIDE = 8190  # pixels that the mp4's codec takes
_LONGEST_PAUSE = 1.0  # seconds that a live video stands still at most where frames are missing

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """Which files of a frame are wanted."""

    drawn: bool = True
    txt: bool = False
    confidence: bool = False
    crops: bool = False
    style: Style = field(default_factory=Style)

    @property
    def anything(self) -> bool:
        """Whether there is any."""
        return self.drawn or self.txt or self.crops


def draw(frame: Frame, style: Style) -> Picture:
    """The frame with its boxes, in its own order of channels."""
    found = frame.detections
    rows = torch.cat((found.class_id[:, None].float(), found.xyxy, found.confidence[:, None]), 1)
    return draw_boxes(frame.pixels, rows, found.names, replace(style, bgr=frame.bgr))


def write_beside(folder: Path, frame: Frame, place: OutputPath, wanted: SaveOptions) -> None:
    """The frame's label file and crops. Raises UserError where they cannot be written."""
    found, stem = frame.detections, place.stem(frame)
    if wanted.txt and len(found):
        lines = label_lines(found, frame.size, confidence=wanted.confidence)
        write_bytes(folder / "labels" / stem.with_name(stem.name + ".txt"), lines.encode())
    if wanted.crops:
        height, width = frame.size
        for i, (box, class_id) in enumerate(zip(found.xyxy.tolist(), found.class_id.tolist(), strict=True), start=1):
            x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
            x2, y2 = max(round(box[2]), x1 + 1), max(round(box[3]), y1 + 1)
            crop = encode(frame.pixels[y1:y2, x1:x2], ".jpg", bgr=frame.bgr)
            name = re.sub(r"[^\w .-]+", "_", found.name(class_id)).strip(" .") or str(class_id)
            write_bytes(folder / "crops" / name / stem.with_name(f"{stem.name}_{i}.jpg"), crop)


def write_still(folder: Path, frame: Frame, place: OutputPath, wanted: SaveOptions) -> None:
    """All files of a still image. Raises UserError where they cannot be written."""
    write_beside(folder, frame, place, wanted)
    if wanted.drawn:
        path = folder / place.drawn
        refuse_among_inputs(path, frame.source)
        picture = draw(frame, wanted.style)
        try:
            data = encode(picture, path.suffix, bgr=frame.bgr)
        except ValueError as error:
            raise UserError(str(error), where=path) from None
        write_bytes(path, data)


def refuse_among_inputs(path: Path, source: Source) -> None:
    """Raises UserError where `path` would lie beside its input: it might overwrite that, or another one."""
    beside = source.location.parent if isinstance(source.location, Path) else None
    if beside is not None and path.parent.is_dir() and beside.is_dir() and path.parent.samefile(beside):
        fix = "give another --project or --name"
        raise UserError("would be written among the inputs and might overwrite one", where=path, fix=fix)


def write_bytes(path: Path, data: bytes) -> None:
    """A whole file, its folder made where it is missing. Raises UserError."""
    try:
        try:
            path.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from None


class Video:
    """An mp4 of drawn frames. `live` ones play at the pace at which their frames came, whatever was dropped.

    Frames larger than the codec takes are made smaller.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], *, live: bool) -> None:
        self.path, self._live = path, live
        gain = min(1.0, _LONGEST_SIDE / max(size))
        height, width = max(1, round(size[0] * gain)), max(1, round(size[1] * gain))
        # The codec takes even sides only; a row or column of border is better than a lost one.
        self._height, self._width = height + height % 2, width + width % 2
        self._fps = max(fps, MIN_FPS)
        self._begun: float | None = None
        self._written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=path) from None
        code = cv2.VideoWriter.fourcc(*"mp4v")
        sides = (self._width, self._height)
        self._writer = cv2.VideoWriter(opencv_name(path), cv2.CAP_FFMPEG, code, self._fps, sides)
        if not self._writer.isOpened():
            fix = "give --nosave, or another --project"
            raise UserError(f"no mp4 of {size[1]}×{size[0]} pixels can be written", where=path, fix=fix)

    def add(self, picture: Picture, at: float) -> None:
        """Append a BGR picture that was taken `at` (seconds)."""
        bottom, right = self._height - picture.shape[0], self._width - picture.shape[1]
        if (bottom, right) != (0, 0):
            if bottom in (0, 1) and right in (0, 1):  # odd sides that were rounded up
                picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            else:  # too large for the codec, or a stream that changed its size
                picture = cv2.resize(picture, (self._width, self._height), interpolation=cv2.INTER_AREA)
        for _ in range(self._copies(at)):
            self._writer.write(picture)
            self._written += 1

    def _copies(self, at: float) -> int:
        if not self._live:
            return 1
        if self._begun is None:
            self._begun = at
        due = round((at - self._begun) * self._fps) + 1 - self._written
        most = max(1, round(_LONGEST_PAUSE * self._fps))
        if due > most:  # after a long gap the clock starts anew
            self._begun = at - (self._written + most - 1) / self._fps
        return min(max(due, 0), most)

    def close(self) -> None:
        """Complete the file. Raises UserError where nothing arrived on the disk."""
        self._writer.release()
        # The writer says nothing of a full disk. A file that was not completed lacks its index and cannot be opened.
        if self._written and not open_capture(self.path).isOpened():
            raise UserError("the video could not be completed; is the disk full?", where=self.path)
