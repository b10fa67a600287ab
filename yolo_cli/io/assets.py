"""Finds the shipped models/*.yaml and data/*.yaml, in a clone or in an installed wheel."""

import os
from pathlib import Path

from yolo_cli.errors import UserError

_NO_YAML = {"data": "`yolo split FOLDER` writes one for a folder of images and labels"}
_PACKAGE = Path(__file__).resolve().parents[1]


def folder(kind: str) -> Path:
    """The folder of shipped files of a kind: "models", "data" or "data/hyp"."""
    in_wheel = _PACKAGE / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def names(kind: str) -> list[str]:
    """The names of the shipped files of a kind, without suffix, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: str, name: str, *, option: str) -> Path:
    """The path of a user's file, or of a shipped file named with or without `.yaml`.

    An existing path takes precedence over a shipped name. Raises UserError, naming `option` and the shipped files.
    """
    given = Path(os.path.expanduser(name))
    if given.is_file():
        return given
    if len(given.parts) == 1:  # a name may hold a dot: yolov5s-v3.1
        shipped = folder(kind) / f"{name.removesuffix('.yaml').removesuffix('.yml')}.yaml"
        if shipped.is_file():
            return shipped
    if given.is_dir():
        inside = sorted(given.glob("*.yaml"))
        fix = f"give {inside[0]}" if len(inside) == 1 else _NO_YAML.get(kind, "")
        raise UserError("is a folder; a YAML file is expected", where=f"{option} {name}", fix=fix)
    raise UserError(
        "no such file, and no shipped file of that name",
        where=f"{option} {name}",
        fix=f"give a path, or one of {', '.join(names(kind))}",
    )
