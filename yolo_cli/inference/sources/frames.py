"""The objects that pass through detection: a source, its frames, and reports of what could not be read."""

import time
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import Detections, Letterbox

Kind = Literal["image", "video", "stream", "screen"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One thing to read: an image, a video, a stream.

    `name` is what messages and result files show; it never holds a password. `relative` is where its outputs go, below
    the run folder. `location` is what opens it: a path, a URL, or the number of a camera or screen.
    """

    kind: Kind
    name: str
    relative: PurePath
    location: Path | str | int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An image as the network takes it: uint8 RGB, channels first, letterboxed."""

    image: UInt8[Tensor, "3 h w"]
    letterbox: Letterbox

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(slots=True)
class Frame:
    """An image or a video frame. Each stage adds to it: pixels, then the network's input, then detections."""

    source: Source
    pixels: UInt8[np.ndarray, "h w 3"]
    bgr: bool = False  # channel order of `pixels`; OpenCV's video decoders give BGR
    number: int = 0  # in its video or stream, from 1; 0 for an image
    fps: float = 0.0  # of the video or stream
    captured_at: float = field(default_factory=time.monotonic)  # seconds
    input: ModelInput | None = None
    detections: Detections = field(default_factory=Detections.empty)
    milliseconds: dict[str, float] = field(default_factory=dict)  # by stage: read, prepare, network, nms, write
    reserved: int = 0  # bytes of the memory limit that it holds
    visualize: bool = False  # whether its feature maps are to be saved
    features: dict[str, UInt8[np.ndarray, "_ _"]] = field(default_factory=dict)  # sheets of feature maps by layer

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def is_live(self) -> bool:
        """Whether its source delivers further frames at its own pace."""
        return self.source.kind in ("stream", "screen")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source of which nothing could be read."""

    source: Source
    reason: str
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a video or stream; `error` is empty where all went well."""

    source: Source
    frames: int
    error: str = ""


Item = Frame | Skipped | Ended
