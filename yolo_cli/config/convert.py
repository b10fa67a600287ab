"""Options of `yolo convert`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConvertConfig:
    """Arguments and options of `yolo convert`."""

    source: str
    target: str
    cfg: str = ""
