"""Run folders: runs/exp, runs/exp2, …; simultaneous runs never share one."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import find_weights

MAX_RUNS = 100_000


def create_run_dir(project: str, name: str, *, exist_ok: bool) -> Path:
    """Create and return the folder of a new run: project/name, or name2, name3, … if that exists.

    With `exist_ok`, an existing project/name is used. Raises UserError if the folder cannot be created or written.
    """
    if not name or Path(name).name != name or name in (".", ".."):
        raise UserError("not a folder name", where=f"--name {name!r}", fix="give one word; --project is the folder")
    parent = Path(os.path.expanduser(project))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, MAX_RUNS):
            folder = parent / (name if number == 1 else f"{name}{number}")
            try:
                folder.mkdir()  # succeeds in one process only
            except FileExistsError:
                if not (exist_ok and folder.is_dir()):
                    continue
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UserError("run folder is not writable", where=folder, fix="give another --project or --name")
            return folder
    except OSError as error:
        raise UserError(
            f"run folder cannot be created ({error.strerror})", where=parent, fix="give another --project"
        ) from None
    raise UserError("too many runs", where=parent, fix="give another --name")


def newest_weights(project: str) -> Path:
    """best.pt of the newest run of a project. Raises UserError if there is none."""
    found = [path for path in Path(os.path.expanduser(project)).glob("*/weights/best.pt") if path.is_file()]
    if not found:
        raise UserError(
            "no run with weights/best.pt",
            where=project,
            fix="give --weights FILE, or train first: yolo train --data shapes --cfg n --img 160",
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def weights_or_newest(weights: str, project: str, reporter: Reporter, *, default: str = "") -> Path:
    """The model file that `--weights` names, or best.pt of the newest run, or else the published weights `default`.

    Raises UserError where there is none.
    """
    if weights:
        return find_weights(weights, reporter=reporter, exported=True)
    try:
        newest = newest_weights(project)
    except UserError:
        if not default:
            raise
        reporter.info(f"--weights not given and no run in {project}: using the published weights {default}")
        return find_weights(default, reporter=reporter)
    reporter.info(f"--weights not given: using {newest} of the newest run")
    return newest


def write_options(path: Path, config: Any) -> None:
    """Write the fields of a config as YAML (opt.yaml, hyp.yaml)."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items()}
    write_mapping(path, values)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON file. Numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names may be any bytes.
    write_atomically(path, text.encode("utf-8", "backslashreplace"), what=path.name)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
