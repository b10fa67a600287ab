"""Hyperparameter files."""

from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from yolo_cli.config import LOSSES, Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter

# Keys of older files that have no counterpart here, and the only value that is accepted (None: any value).
_WITHOUT_EFFECT = {"iou_t": None, "copy_paste": 0.0, "paste_in": 0.0, "anchors": None}


def read_hyperparameters(hyp: str, reporter: Reporter, loss: str = "") -> Hyperparameters:
    """The hyperparameters of `--hyp`, which is a path or a shipped name; the defaults if it is "".

    Raises UserError if a value is not valid, or the file requires another loss than `loss`, that of `--loss`.
    """
    if not hyp:
        return Hyperparameters()
    path = assets.find("data/hyp", hyp, option="--hyp")
    values = read_mapping(path)
    known = {field.name: field.type for field in fields(Hyperparameters)}
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
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"unknown key {unknown[0]}", where=path, fix=f"known keys are {', '.join(known)}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(f"{key} must be a number from 0 up, not {value!r}", where=path)
        if known[key] is int and value != int(value):
            raise UserError(f"{key} must be a whole number, not {value!r}", where=path)
    numbers: dict[str, Any] = {key: int(v) if known[key] is int else float(v) for key, v in values.items()}
    try:
        return Hyperparameters(**numbers)
    except UserError as error:
        raise UserError(error.what, where=path) from None


def describe_hyperparameters(hyp: Hyperparameters) -> str:
    """The values that differ from the defaults, in one line."""
    defaults = asdict(Hyperparameters())
    changed = [f"{key} {value:g}" for key, value in asdict(hyp).items() if value != defaults[key]]
    return "hyperparameters: defaults" + (f" except {', '.join(changed)}" if changed else "")
