"""The metadata inside an exported file: class names, size, thresholds and producer, as plain text."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from yolo_cli.config.thresholds import Conf, SavedThresholds
from yolo_cli.errors import UserError, first_line
from yolo_cli.version import __version__

PRODUCER = f"yolo_cli {__version__}"
TASK = "detect"
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class NMSSettings:
    """Confidence threshold (for all classes or one per class), IoU threshold and maximum detections per image."""

    conf: Conf
    iou: float
    max_det: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything that is needed to run a file, besides its network."""

    names: tuple[str, ...]
    stride: int
    img: tuple[int, int]  # height and width; the largest ones of a dynamic file
    batch: int
    dynamic: bool = False  # any batch size, and any image size that is a multiple of the stride
    half: bool = False
    int8: bool = False
    nms: NMSSettings | None = None  # of a file with NMS inside
    architecture: str = ""
    producer: str = PRODUCER
    task: str = TASK
    thresholds: SavedThresholds | None = None  # of the checkpoint, for `--conf auto`

    def to_text(self) -> dict[str, str]:
        """Each field as JSON text, the form in which most formats store metadata."""
        return {key: json.dumps(value, ensure_ascii=False) for key, value in asdict(self).items()}

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


def from_text(texts: Mapping[str, str], *, where: object) -> Metadata:
    """Metadata from its fields as JSON texts. Raises UserError for a file of another program, or a damaged one."""
    if not {"names", "stride", "img", "batch"} <= texts.keys():
        fix = "export it with `yolo export`, which writes class names and sizes into the file"
        raise UserError("contains no class names and sizes", where=where, fix=fix)
    try:
        return _from_fields({key: json.loads(texts[key]) for key in Metadata.__dataclass_fields__ if key in texts})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"its metadata is not valid ({first_line(error)})", where=where) from None


def from_json(text: str, *, where: object) -> Metadata:
    """Metadata from one JSON object. Raises UserError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("its metadata is not JSON", where=where) from None
    mapping = content if isinstance(content, dict) else {}
    return from_text({str(key): json.dumps(value) for key, value in mapping.items()}, where=where)


def _from_fields(fields: dict[str, Any]) -> Metadata:
    height, width = (_integer(v, "img", 1, 1 << 16) for v in fields["img"])
    names = tuple(str(name) for name in fields["names"])
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} classes")
    nms = _nms(fields["nms"], len(names)) if fields.get("nms") else None
    saved = fields.get("thresholds")
    thresholds = SavedThresholds.from_mapping(saved, len(names)) if saved is not None else None
    stride, batch = _integer(fields["stride"], "stride", 1, 1 << 12), _integer(fields["batch"], "batch", 1, 1 << 16)
    taken = ("names", "stride", "img", "batch", "nms", "thresholds")
    rest = {key: value for key, value in fields.items() if key not in taken}
    return Metadata(names, stride, (height, width), batch, nms=nms, thresholds=thresholds, **rest)


def _nms(value: Any, classes: int) -> NMSSettings:
    nms = NMSSettings(**value)
    by_class = isinstance(nms.conf, list)
    if by_class:
        nms = replace(nms, conf=tuple(nms.conf))  # type: ignore[arg-type]
    confs = nms.conf if isinstance(nms.conf, tuple) else (nms.conf,)
    numbers = all(isinstance(v, int | float) for v in (*confs, nms.iou, nms.max_det))
    if not numbers or (by_class and len(confs) != classes):
        raise ValueError(f"nms is {value!r}")
    return nms


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}")
    return value
