"""Run folders: runs/exp, runs/exp2, …, claimed so that simultaneous runs never share one."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.yaml_file import write_mapping

MAX_RUNS = 100_000


def claim(project: str, name: str, *, exist_ok: bool) -> Path:
    """Make and return a folder that is this run's alone: project/name, or with the first free number behind it.

    With `exist_ok` project/name is used as it is. Raises UserError where it cannot be made.
    """
    if not name or Path(name).name != name or name in (".", ".."):
        raise UserError("not a folder name", where=f"--name {name!r}", fix="give one word; --project is the folder")
    parent = Path(os.path.expanduser(project))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, MAX_RUNS):
            folder = parent / (name if number == 1 else f"{name}{number}")
            try:
                folder.mkdir()  # the claim: making a folder succeeds for one process only
            except FileExistsError:
                if not (exist_ok and folder.is_dir()):
                    continue
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UserError("run folder is not writable", where=folder, fix="give another --project or --name")
            return folder
    except OSError as error:
        raise UserError(
            f"run folder cannot be made ({error.strerror})", where=parent, fix="give another --project"
        ) from None
    raise UserError("too many runs", where=parent, fix="give another --name")


def newest_weights(project: str) -> Path:
    """best.pt of the newest run of a project. Raises UserError where there is none."""
    found = [path for path in Path(os.path.expanduser(project)).glob("*/weights/best.pt") if path.is_file()]
    if not found:
        raise UserError(
            "no run with weights/best.pt",
            where=project,
            fix="give --weights FILE, or train first: yolo train --data shapes --cfg n --img 160",
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def write_options(path: Path, config: Any) -> None:
    """Options as YAML (opt.yaml, hyp.yaml)."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items()}
    try:
        write_mapping(path, values)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from None


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """A JSON file; numbers that are not finite become null."""
    try:
        text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # file names may be any bytes
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
