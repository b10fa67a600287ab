"""What an exported file says of itself, in plain text that any language reads: classes, size, thresholds, producer."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.version import __version__

PRODUCER = f"yolo_cli {__version__}"
TASK = "detect"
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class Suppression:
    """Non-maximum suppression inside a file, and its thresholds."""

    conf: float
    iou: float
    max_det: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything that running a file takes beyond the file's own graph."""

    names: tuple[str, ...]
    stride: int
    img: tuple[int, int]  # height and width; the largest where sizes are dynamic
    batch: int
    dynamic: bool = False  # batch and sizes may be others, sizes multiples of the stride
    half: bool = False
    int8: bool = False
    nms: Suppression | None = None
    architecture: str = ""
    producer: str = PRODUCER
    task: str = TASK

    def to_text(self) -> dict[str, str]:
        """Key by key as JSON texts, the form in which most formats hold metadata."""
        return {key: json.dumps(value, ensure_ascii=False) for key, value in asdict(self).items()}

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


def from_text(texts: Mapping[str, str], *, where: object) -> Metadata:
    """Metadata from JSON texts by key. Raises UserError for a file that another program wrote, or that is damaged."""
    if not {"names", "stride", "img", "batch"} <= texts.keys():
        fix = "export it with `yolo export`, which writes classes and sizes into the file"
        raise UserError("says nothing of its classes and size", where=where, fix=fix)
    try:
        known = {key: json.loads(texts[key]) for key in Metadata.__dataclass_fields__ if key in texts}
        return _checked(known)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"its metadata is not sound ({detail[:120]})", where=where) from None


def from_json(text: str, *, where: object) -> Metadata:
    """Metadata from one JSON object. Raises UserError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("its metadata is not JSON", where=where) from None
    mapping = content if isinstance(content, dict) else {}
    return from_text({str(key): json.dumps(value) for key, value in mapping.items()}, where=where)


def _checked(known: dict[str, Any]) -> Metadata:
    height, width = (_whole(v, "img", 1, 1 << 16) for v in known["img"])
    names = tuple(str(name) for name in known["names"])
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} classes")
    nms = Suppression(**known["nms"]) if known.get("nms") else None
    if nms and not all(isinstance(v, int | float) for v in (nms.conf, nms.iou, nms.max_det)):
        raise ValueError(f"nms is {known['nms']!r}")
    stride, batch = _whole(known["stride"], "stride", 1, 1 << 12), _whole(known["batch"], "batch", 1, 1 << 16)
    rest = {key: value for key, value in known.items() if key not in ("names", "stride", "img", "batch", "nms")}
    return Metadata(names, stride, (height, width), batch, nms=nms, **rest)


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}")
    return value
