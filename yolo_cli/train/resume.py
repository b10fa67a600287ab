"""`yolo train --resume`: which run, from which file, and whether anything is not as it was."""

import json
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter
from yolo_cli.train.setup import TrainData, read_hyperparameters
from yolo_cli.weights.load import Weights, load_weights

LAST, PREVIOUS = "last.pt", "last_previous.pt"
NEWEST = "newest"  # what `--resume` alone means
# What may be another than before: it has no influence on the numbers, or is meant to be changed.
_WRITING = ("nosave", "noplots", "save_period", "save_every", "save_minutes", "project", "name", "exist_ok")
FREE = frozenset(("resume", "epochs", "patience", "device", "workers", "cache", "strict", "nan_policy", *_WRITING))


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A run that is to be continued."""

    folder: Path
    weights: Weights  # with the moving average
    state: Mapping[str, Any]
    config: TrainConfig  # the run's own, with what may be changed as now given
    hyp: Hyperparameters
    over: bool = False  # its epochs are done; what is left is to judge its best weights


def has_state(folder: Path) -> bool:
    """Whether a run has saved a state to continue from."""
    return bool(_candidates(folder))


def find_point(
    config: TrainConfig, given: AbstractSet[str], reporter: Reporter, *, of_job: bool = False
) -> ResumePoint:
    """Where `--resume` continues; `given` names the options on the command line, the others are the run's.

    A run whose end was cut off after its epochs, and any `of_job`, is judged again. Raises UserError where there is no
    such run, it cannot be continued, or an option contradicts it.
    """
    folder = run_of(config)
    weights, state = _read(folder, reporter)
    try:
        known = {item.name for item in fields(TrainConfig)}
        stored = TrainConfig(**{k: _tupled(v) for k, v in dict(state["options"]).items() if k in known})
        hyp = Hyperparameters(**state["hyp"])
    except UserError as error:
        raise UserError(f"saved options: {error}", where=folder, fix="start anew: --weights") from None
    except (KeyError, TypeError, ValueError):
        raise UserError("the saved options are incomplete", where=folder, fix="start anew: --weights") from None
    changed = [name for name in sorted(given - FREE) if getattr(config, name) != getattr(stored, name)]
    if "hyp" in changed and read_hyperparameters(config.hyp, reporter, stored.loss) == hyp:
        changed.remove("hyp")
    if changed:
        listed = ", ".join(f"--{n.replace('_', '-')} {getattr(stored, n)!s} → {getattr(config, n)!s}" for n in changed)
        raise UserError(f"not as the run began: {listed}", where=folder, fix="leave it out, or start a new run")
    taken = {name: getattr(config, name) for name in given & FREE if name not in ("project", "name", "exist_ok")}
    merged = replace(stored, **taken)
    over = _check_end(folder, state, stored, merged, of_job=of_job)
    return ResumePoint(folder, weights, state, merged, hyp, over)


def _check_end(
    folder: Path, state: Mapping[str, Any], stored: TrainConfig, merged: TrainConfig, *, of_job: bool
) -> bool:
    """Whether all epochs are done. Raises UserError where the results of those are there, too."""
    epoch, since = int(state["progress"]["epoch"]), int(state["progress"]["best_epoch"]) + 1
    if merged.epochs < epoch and not of_job:
        fix = f"extend it: yolo train --resume {folder} --epochs {epoch + 50}"
        raise UserError(f"has done its {epoch} epochs, not {merged.epochs}", where=folder, fix=fix)
    early = epoch < stored.epochs and 0 < merged.patience <= epoch - since
    over = bool(state.get("ended")) and (merged.epochs <= epoch or early)
    if over and not of_job and _judged_epochs(folder) == epoch:
        what = f"has done its {epoch} epochs"
        if merged.epochs <= epoch:
            fix = f"extend it: yolo train --resume {folder} --epochs {epoch + 50}"
        else:
            what = f"stopped early after {epoch} epochs (--patience {merged.patience})"
            fix = f"extend it: yolo train --resume {folder} --patience 0"
        raise UserError(what, where=folder, fix=fix)
    return over


def _judged_epochs(folder: Path) -> int:
    """The epochs that results.json, written last, tells of; 0 where there is none."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return content.get("epochs", 0) if isinstance(content, dict) else 0


def check_data(point: ResumePoint, data: TrainData) -> None:
    """Raises UserError that names what has changed in the data set since the run was saved."""
    before, now = point.state["data"], fingerprint(data)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = f"the data set has changed: {', '.join(changed)}"
        raise UserError(what, where=point.config.data, fix="bring it back as it was, or start a new run")


def fingerprint(data: TrainData) -> dict[str, Any]:
    """What identifies a data set: class names, and images and labels of both splits."""
    splits = {f"{split.name} images or labels": split.index.fingerprint for split in (data.train, data.val)}
    return {"class names": list(data.names), **splits}


def options(config: TrainConfig) -> dict[str, Any]:
    """A run's options as plain data."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def run_of(config: TrainConfig) -> Path:
    """The folder of the run that `--resume` names. Raises UserError where there is none."""
    if config.resume != NEWEST:
        given = Path(os.path.expanduser(config.resume))
        folder = given.parent.parent if given.is_file() else given
        if not _candidates(folder):
            raise UserError(f"holds no weights/{LAST}", where=f"--resume {config.resume}", fix="give a run's folder")
        return folder
    runs = [path.parent.parent for name in (LAST, PREVIOUS) for path in Path(config.project).glob(f"*/weights/{name}")]
    if not runs:
        raise UserError("no run to continue", where=config.project, fix="give --resume FOLDER, or train without it")
    return max(runs, key=lambda run: max(path.stat().st_mtime_ns for path in _candidates(run)))


def _candidates(folder: Path) -> Sequence[Path]:
    return [path for name in (LAST, PREVIOUS) if (path := folder / "weights" / name).is_file()]


def _read(folder: Path, reporter: Reporter) -> tuple[Weights, Mapping[str, Any]]:
    """The newest state that can be read; a damaged one is said, and the one before it taken."""
    failures: list[str] = []
    for path in _candidates(folder):
        try:
            weights = load_weights(path)
            state = weights.training
            if not state:
                raise UserError("holds weights alone", where=path, fix=f"start from them: --weights {path}")
        except UserError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            reporter.warn(f"{failure}; continuing from {path.name}, saved before it")
        return weights, state
    raise UserError(failures[0] if failures else "holds no state", where="" if failures else folder)
