"""What travels through detection: where a frame comes from, the frame itself, and word of what could not be read."""

import time
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import Detections, Letterbox

Kind = Literal["image", "video", "live", "screen"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One thing to read: an image, a video, a camera.

    `name` is what reports and records call it (never with a password); `relative` is where its outputs go in the run
    folder; `location` is what opens it: a path, a URL, or the number of a camera or screen.
    """

    kind: Kind
    name: str
    relative: PurePath
    location: Path | str | int


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image as the network takes it: uint8 RGB, channels first, letterboxed."""

    image: UInt8[Tensor, "3 h w"]
    letterbox: Letterbox

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(slots=True)
class Frame:
    """One picture on its way: first its pixels, then its canvas, at last what was found on it."""

    source: Source
    pixels: UInt8[np.ndarray, "h w 3"]
    bgr: bool = False  # the order in which OpenCV's video decoders give channels
    number: int = 0  # of a frame in its video or stream, from 1; 0 for a still
    fps: float = 0.0  # of the video or stream
    at: float = field(default_factory=time.monotonic)  # when it was taken, in seconds
    canvas: Canvas | None = None
    detections: Detections = field(default_factory=Detections.empty)
    milliseconds: dict[str, float] = field(default_factory=dict)  # by stage: read, prepare, network, nms
    claimed: int = 0  # bytes that it holds of the memory budget
    features: dict[str, UInt8[np.ndarray, "_ _"]] = field(default_factory=dict)  # sheets of feature maps by layer

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def is_live(self) -> bool:
        """Whether more of its source come whether or not anybody takes them."""
        return self.source.kind in ("live", "screen")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source of which nothing could be read, and why."""

    source: Source
    why: str
    claimed: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A video or stream is over; `why` says what went wrong, if anything did."""

    source: Source
    frames: int
    why: str = ""


Item = Frame | Skipped | Ended
