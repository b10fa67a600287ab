"""Confidence thresholds: one for all classes or one per class, as `--conf` gives them or as a weight file has them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from yolo_cli.errors import UserError

AUTO = "auto"  # `--conf auto`: the thresholds in the weight file
DEFAULT = 0.25  # of classes that `--conf person=0.4` leaves out

Conf = float | tuple[float, ...]  # a confidence threshold for all classes, or one per class id


@dataclass(frozen=True, slots=True)
class SavedThresholds:
    """The thresholds in a weight file, and how `yolo val --save-thresholds` chose them."""

    overall: float
    per_class: tuple[float, ...]  # by class id; those of classes with too few boxes equal `overall`
    criterion: str  # such as "best F1"
    data: str  # the images on which they were chosen

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {**asdict(self), "per_class": list(self.per_class)}

    @staticmethod
    def from_mapping(value: object, classes: int) -> "SavedThresholds":
        """Thresholds from plain data of a file. Raises ValueError if they are not valid for that many classes."""
        if not isinstance(value, Mapping):
            raise ValueError("the thresholds are not a mapping")
        per_class = value.get("per_class")
        if not isinstance(per_class, list | tuple) or len(per_class) != classes:
            raise ValueError(f"the thresholds are not those of {classes} classes")
        overall, *values = (_fraction(v) for v in (value.get("overall"), *per_class))
        return SavedThresholds(overall, tuple(values), str(value.get("criterion", "")), str(value.get("data", "")))


def parse_conf(value: float | str) -> float | str:
    """The value of `--conf`: a number, or the text itself if it is none."""
    try:
        return float(value)
    except ValueError:
        return str(value)


def check_conf(conf: float | str) -> None:
    """Raises UserError for a value of `--conf` that is not valid for any model."""
    if isinstance(conf, str):
        _parts(conf)
    elif not 0 <= conf <= 1:
        raise UserError("must be from 0 to 1", where=f"--conf {conf}")


def resolve_conf(conf: float | str, names: Sequence[str], saved: SavedThresholds | None) -> Conf:
    """The thresholds that `--conf` means for a model with these class names.

    Raises UserError for classes that the model does not have, and for `auto` if `saved` is None.
    """
    if not isinstance(conf, str):
        return conf
    base, named = _parts(conf)
    if base == AUTO and saved is None:
        fix = "choose them: yolo val --weights FILE --data DATA --save-thresholds"
        raise UserError("the weights have no saved thresholds", where=f"--conf {conf}", fix=fix)
    if isinstance(base, float):
        values = [base] * len(names)
    else:
        assert saved is not None
        values = list(saved.per_class)
    for name, value in named.items():
        values[_class_id(name, names, conf)] = value
    return tuple(values)


def lowest(conf: Conf) -> float:
    """The lowest threshold of any class."""
    return min(conf) if isinstance(conf, tuple) else conf


def is_below(conf: Conf, other: Conf) -> bool:
    """Whether any class has a lower threshold in `conf` than in `other`."""
    if isinstance(conf, tuple) and isinstance(other, tuple):
        return any(a < b for a, b in zip(conf, other, strict=True))
    if isinstance(other, tuple):
        return lowest(conf) < max(other)
    return lowest(conf) < other


def conf_text(conf: Conf) -> str:
    """For messages: `0.25`, or `0.1 to 0.4 by class`."""
    return f"{min(conf):g} to {max(conf):g} by class" if isinstance(conf, tuple) else f"{conf:g}"


def _parts(text: str) -> tuple[float | str, dict[str, float]]:
    """The threshold of classes that are not named (a number or AUTO), and those of named classes.

    Class names may contain commas and equals signs.
    """
    base: float | str = DEFAULT
    named: dict[str, float] = {}
    pending = ""
    where = f"--conf {text}"
    for position, part in enumerate(text.split(",")):
        if position == 0 and (part.strip() == AUTO or _number(part) is not None):
            number = _number(part)
            base = AUTO if number is None else _checked(number, where)
            continue
        pending += part
        name, equals, value = pending.rpartition("=")
        number = _number(value)
        if equals and name.strip() and number is not None:
            if name.strip() in named:
                raise UserError(f"names {name.strip()} twice", where=where, fix="give each class once")
            named[name.strip()] = _checked(number, where)
            pending = ""
        else:
            pending += ","
    if pending:
        raise UserError("is not a confidence", where=where, fix="give 0.25, auto, or person=0.4,car=0.3")
    return base, named


def _class_id(name: str, names: Sequence[str], conf: str) -> int:
    """The class of that name, exactly or without regard to case, or of that number."""
    if name in names:
        return list(names).index(name)
    folded = [known.strip().casefold() for known in names]
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    near = get_close_matches(name, names, n=1)
    fix = f"did you mean {near[0]}?" if near else f"its classes: {', '.join(names[:10])}{' …' * (len(names) > 10)}"
    raise UserError(f"the model has no class {name!r}", where=f"--conf {conf}", fix=fix)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _checked(value: float, where: str) -> float:
    if not 0 <= value <= 1:
        raise UserError("must be from 0 to 1", where=where)
    return value


def _fraction(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"the threshold {value!r} is not from 0 to 1")
    return float(value)
