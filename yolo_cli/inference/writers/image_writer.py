"""Drawn images, crops and label files of one frame; videos of drawn frames."""

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

_MAX_SIDE = 8190  # pixels; the limit of the mp4's codec
_MAX_PAUSE = 1.0  # seconds; where more frames of a live video are missing, the gap is shortened to this

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """Which files are written for a frame."""

    drawn: bool = True
    txt: bool = False
    confidence: bool = False
    crops: bool = False
    style: Style = field(default_factory=Style)


def draw(frame: Frame, style: Style) -> Image:
    """The frame with its boxes, in its own channel order."""
    found = frame.detections
    rows = torch.cat((found.class_id[:, None].float(), found.xyxy, found.confidence[:, None]), 1)
    return draw_boxes(frame.pixels, rows, found.names, replace(style, bgr=frame.bgr))


def write_labels_and_crops(folder: Path, frame: Frame, path: OutputPath, options: SaveOptions) -> None:
    """Raises UserError where they cannot be written."""
    found, stem = frame.detections, path.stem(frame)
    if options.txt and len(found):
        lines = label_lines(found, frame.size, confidence=options.confidence)
        write_bytes(folder / "labels" / stem.with_name(stem.name + ".txt"), lines.encode())
    if options.crops:
        height, width = frame.size
        for i, (box, class_id) in enumerate(zip(found.xyxy.tolist(), found.class_id.tolist(), strict=True), start=1):
            x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
            x2, y2 = max(round(box[2]), x1 + 1), max(round(box[3]), y1 + 1)
            crop = encode(frame.pixels[y1:y2, x1:x2], ".jpg", bgr=frame.bgr)
            name = re.sub(r"[^\w .-]+", "_", found.name(class_id)).strip(" .") or str(class_id)
            write_bytes(folder / "crops" / name / stem.with_name(f"{stem.name}_{i}.jpg"), crop)


def write_image(folder: Path, frame: Frame, path: OutputPath, options: SaveOptions) -> None:
    """All files of an image. Raises UserError where they cannot be written."""
    write_labels_and_crops(folder, frame, path, options)
    if options.drawn:
        target = folder / path.drawn
        refuse_among_inputs(target, frame.source)
        drawn = draw(frame, options.style)
        try:
            data = encode(drawn, target.suffix, bgr=frame.bgr)
        except ValueError as error:
            raise UserError(str(error), where=target) from None
        write_bytes(target, data)


def refuse_among_inputs(path: Path, source: Source) -> None:
    """Raises UserError where `path` would be in the folder of its input: it might overwrite that, or another one."""
    inputs = source.location.parent if isinstance(source.location, Path) else None
    if inputs is not None and path.parent.is_dir() and inputs.is_dir() and path.parent.samefile(inputs):
        fix = "give another --project or --name"
        raise UserError("would be written among the inputs and might overwrite one", where=path, fix=fix)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, making its folder where that is missing. Raises UserError."""
    try:
        try:
            path.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from None


class VideoWriter:
    """An mp4 of drawn frames. A `live` one plays in real time: a frame stays until the next one was captured.

    Frames larger than the codec takes are scaled down.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], *, live: bool) -> None:
        self.path, self._live = path, live
        gain = min(1.0, _MAX_SIDE / max(size))
        height, width = max(1, round(size[0] * gain)), max(1, round(size[1] * gain))
        # The codec takes even sides only. Odd ones get a row or column of border, so that nothing is lost.
        self._height, self._width = height + height % 2, width + width % 2
        self._fps = max(fps, MIN_FPS)
        self._start: float | None = None
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

    def add(self, image: Image, captured_at: float) -> None:
        """Append a BGR image that was captured at a time in seconds."""
        bottom, right = self._height - image.shape[0], self._width - image.shape[1]
        if (bottom, right) != (0, 0):
            if bottom in (0, 1) and right in (0, 1):  # odd sides that were rounded up
                image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            else:  # too large for the codec, or a stream that changed its size
                image = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_AREA)
        for _ in range(self._copies(captured_at)):
            self._writer.write(image)
            self._written += 1

    def _copies(self, captured_at: float) -> int:
        """How often to write a frame so that the video keeps up with the clock."""
        if not self._live:
            return 1
        if self._start is None:
            self._start = captured_at
        due = round((captured_at - self._start) * self._fps) + 1 - self._written
        limit = max(1, round(_MAX_PAUSE * self._fps))
        if due > limit:  # after a long gap the clock is set back
            self._start = captured_at - (self._written + limit - 1) / self._fps
        return min(max(due, 0), limit)

    def close(self) -> None:
        """Complete the file. Raises UserError where it cannot be opened again."""
        self._writer.release()
        # The writer does not report a full disk. A file that was not completed lacks its index and cannot be opened.
        if self._written and not open_capture(self.path).isOpened():
            raise UserError("the video could not be completed; is the disk full?", where=self.path)
