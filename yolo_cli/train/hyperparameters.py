"""The value of `--hyp`: the automatic choice or a file of hyperparameters, and single values that win over both."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from yolo_cli.config import LOSSES, Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter

AUTO = "auto"  # `--hyp auto`: chosen by train/recipe.py

# Keys of older files that have no counterpart here, and the only value that is accepted (None: any value).
_WITHOUT_EFFECT = {"iou_t": None, "copy_paste": 0.0, "paste_in": 0.0, "anchors": None}
_TYPES = {field.name: field.type for field in fields(Hyperparameters)}


@dataclass(frozen=True, slots=True)
class HypChoice:
    """What `--hyp` asks for: explicit values, and whether the others are chosen automatically or are the defaults."""

    automatic: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "HypChoice":
        """The choice of a run that is continued; of one from before `auto`, the values alone."""
        saved = state.get("hyp_choice")
        return HypChoice(**saved) if saved else HypChoice(values=state["hyp"])

    def with_defaults(self) -> Hyperparameters:
        """The explicit values; all others are the defaults."""
        return Hyperparameters(**self.values)


def read_hyperparameters(hyp: str, reporter: Reporter, loss: str = "") -> HypChoice:
    """Read `--hyp`: `auto`, a path, or a shipped name, and after it single values as in `auto,lr0=0.002,mosaic=0.5`.

    Values alone mean `auto` with these. With "", all values are the defaults.

    Raises UserError if a value is not valid, or the file requires another loss than `loss`, that of `--loss`.
    """
    if not hyp:
        return HypChoice()
    base, single = (hyp, {}) if Path(hyp).is_file() else _split(hyp)
    if base == AUTO:
        return HypChoice(automatic=True, values=single)
    path = assets.find("data/hyp", base, option="--hyp")
    values = {**_read_file(path, reporter, loss), **single}
    try:
        Hyperparameters(**values)
    except UserError as error:
        raise UserError(error.what, where=f"--hyp {hyp}" if single else path) from None
    return HypChoice(values=values)


def _split(text: str) -> tuple[str, dict[str, Any]]:
    """The file, name or `auto` before the single values, and these. Raises UserError for a value that is not valid."""
    parts = text.split(",")
    base = AUTO if "=" in parts[0] else parts.pop(0)
    where = f"--hyp {text}"
    values: dict[str, Any] = {}
    for part in parts:
        name, equals, number = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f"{part!r} is not NAME=VALUE", where=where, fix="write lr0=0.002,mosaic=0.5")
        if name in values:
            raise UserError(f"{name} is given twice", where=where)
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"{name} must be a number, not {number!r}", where=where) from None
    checked = _checked(values, where)
    try:
        Hyperparameters(**{"close_mosaic": 1, **checked})  # l1 is for the last epochs, which auto chooses
    except UserError as error:
        raise UserError(error.what, where=where) from None
    return base, checked


def _read_file(path: Path, reporter: Reporter, loss: str) -> dict[str, Any]:
    values = read_mapping(path)
    # YOLOv7's files choose the loss. Here an option does, and a contradiction between the two must not pass silently.
    if (loss_ota := values.pop("loss_ota", None)) is not None:
        if loss_ota not in (0, 1):
            raise UserError(f"loss_ota must be 0 or 1, not {loss_ota!r}", where=path)
        loss = loss or LOSSES[0]
        if (requested := LOSSES[int(loss_ota)]) != loss:
            fix = f"give --loss {requested}, or remove loss_ota from the file"
            raise UserError(f"loss_ota {loss_ota} does not go with --loss {loss}", where=path, fix=fix)
    for key in [k for k in values if k in _WITHOUT_EFFECT]:
        value = values.pop(key)
        if value and _WITHOUT_EFFECT[key] is not None:
            raise UserError(f"{key} is not supported", where=path, fix="set it to 0")
        reporter.warn(f"{path}: {key} has no effect here")
    return _checked(values, path)


def _checked(values: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The values as numbers of the right type. Raises UserError for unknown names and for what is not a number."""
    if unknown := [key for key in values if key not in _TYPES]:
        raise UserError(f"unknown key {unknown[0]}", where=where, fix=f"known keys are {', '.join(_TYPES)}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(f"{key} must be a number from 0 up, not {value!r}", where=where)
        if _TYPES[key] is int and value != int(value):
            raise UserError(f"{key} must be a whole number, not {value!r}", where=where)
    return {key: int(value) if _TYPES[key] is int else float(value) for key, value in values.items()}


def describe_hyperparameters(hyp: Hyperparameters) -> str:
    """The values that differ from the defaults, comma-separated; "" if there are none."""
    defaults = asdict(Hyperparameters())
    return ", ".join(f"{key} {value:g}" for key, value in asdict(hyp).items() if value != defaults[key])
