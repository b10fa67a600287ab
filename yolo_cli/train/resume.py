"""`yolo train --resume`: which run is continued, from which file, and whether its options and data are unchanged."""

import json
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.distributed.world import World
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.lock import RunLock
from yolo_cli.train.hyperparameters import read_hyperparameters
from yolo_cli.train.train_data import TrainData
from yolo_cli.weights.load import Weights, load_weights

LAST, PREVIOUS = "last.pt", "last_previous.pt"
NEWEST = "newest"  # the value of `--resume` without a folder
# Options that a resumed run may change: they have no influence on the numbers, or are meant to be changed.
_WRITING = ("nosave", "noplots", "save_period", "save_every", "save_minutes", "project", "name", "exist_ok")
FREE = frozenset(
    ("resume", "epochs", "patience", "device", "workers", "cache", "strict", "nan_policy", "compile", *_WRITING)
)
# Options whose effective values are found when the run begins: the measured batch size, the rounded image size, the
# optimizer that --hyp auto chooses.
RESOLVED = ("batch", "img", "tile", "optimizer")
# Seconds that a job waits for processes of an earlier start, whose launcher was killed, to save and end.
LINGER = 60.0


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A run that is continued."""

    folder: Path
    weights: Weights  # of the moving average
    state: Mapping[str, Any]
    config: TrainConfig  # the options of the run, with those in FREE as they are given now
    hyp: Hyperparameters
    finished: bool = False  # all epochs are done; the best weights are still to be evaluated


def find_resume_point(
    config: TrainConfig, given: AbstractSet[str], job: ElasticJob, lock: RunLock, world: World, reporter: Reporter
) -> ResumePoint | None:
    """The state to continue from: that of the run which this job began before a restart, or that of `--resume`.

    `given` names the options that the user gave; the others are taken from the run. The run folder is locked before
    its state is read. Raises UserError if there is no such run, it cannot be continued, or an option contradicts it.
    """
    begun = run = None
    if world.is_main:
        begun = job.unfinished_run(config.project)
        run = begun or (find_run(config) if config.resume else None)
        if run:
            lock.acquire(run, patience=LINGER if job.key else 0.0)
    begun, run = world.broadcast_object((begun, run))
    if begun and _state_files(begun):
        reporter.warn(f"restart {job.restarts} of this job: continuing {begun}")
        return read_resume_point(begun, config, given, reporter, restarted=True)
    return read_resume_point(run, config, given, reporter) if run and config.resume else None


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether a run has ended after at least that many epochs, or by early stopping, and its results are written."""
    if not _state_files(folder):
        return False
    _, state = _read_state(folder, Silent())
    done = int(state["progress"]["epoch"])
    stopped_early = done < int(state["options"]["epochs"]) and bool(state.get("ended"))
    return bool(state.get("ended")) and (done >= epochs or stopped_early) and _evaluated_epochs(folder) == done


def find_run(config: TrainConfig) -> Path:
    """The folder of the run that `--resume` names. Raises UserError if there is none."""
    if config.resume != NEWEST:
        given = Path(os.path.expanduser(config.resume))
        folder = given.parent.parent if given.is_file() else given
        if not _state_files(folder):
            raise UserError(f"contains no weights/{LAST}", where=f"--resume {config.resume}", fix="give a run folder")
        return folder
    project = Path(os.path.expanduser(config.project))
    runs = [path.parent.parent for name in (LAST, PREVIOUS) for path in project.glob(f"*/weights/{name}")]
    if not runs:
        raise UserError("no run to continue", where=config.project, fix="give --resume FOLDER, or train without it")
    return max(runs, key=lambda run: max(path.stat().st_mtime_ns for path in _state_files(run)))


def read_resume_point(
    folder: Path, config: TrainConfig, given: AbstractSet[str], reporter: Reporter, *, restarted: bool = False
) -> ResumePoint:
    """The newest readable state of a run, with its options checked against those that are `given`.

    A finished run is an error, unless its results are missing or the job was `restarted`: then its best weights are
    evaluated again. Raises UserError for that, for unreadable states, and for an option that contradicts the run.
    """
    weights, state = _read_state(folder, reporter)
    try:
        names = {item.name for item in fields(TrainConfig)}
        stored = TrainConfig(**{k: _with_tuples(v) for k, v in dict(state["options"]).items() if k in names})
        hyp = Hyperparameters(**state["hyp"])
    except UserError as error:
        raise UserError(f"saved options: {error}", where=folder, fix="start a new run: --weights") from None
    except (KeyError, TypeError, ValueError):
        raise UserError("the saved options are incomplete", where=folder, fix="start a new run: --weights") from None
    changed = [name for name in sorted(given - FREE) if not _is_unchanged(name, config, stored, state)]
    if "hyp" in changed:
        choice = read_hyperparameters(config.hyp, reporter, stored.loss)
        if not choice.automatic and choice.with_defaults() == hyp:
            changed.remove("hyp")
    if changed:
        listed = ", ".join(f"--{n.replace('_', '-')} {getattr(stored, n)!s} → {getattr(config, n)!s}" for n in changed)
        raise UserError(f"options differ from the run's: {listed}", where=folder, fix="omit them, or start a new run")
    if "," in stored.device and "device" not in given and not restarted:
        reporter.warn(f"the run used --device {stored.device}; it continues exactly only with that")
    taken = {name: getattr(config, name) for name in given & FREE if name not in ("project", "name", "exist_ok")}
    merged = replace(stored, **taken)
    finished = _check_end(folder, state, stored, merged, restarted=restarted)
    return ResumePoint(folder, weights, state, merged, hyp, finished)


def check_data(point: ResumePoint, data: TrainData) -> None:
    """Raises UserError that names what has changed in the dataset since the state was saved."""
    before, now = point.state["data"], data.fingerprint()
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = f"the dataset has changed: {', '.join(changed)}"
        raise UserError(what, where=point.config.data, fix="restore it, or start a new run")


def plain_options(config: TrainConfig) -> dict[str, Any]:
    """The options as plain data."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()}


def resume_hint(place: str, folder: Path, device: str) -> str:
    """The line that a stopped training prints. `place` is where it stopped, such as "after the last epoch"."""
    devices = f" --device {device}" if "," in device else ""
    return f"stopped {place}; the state is saved. Continue with: yolo train --resume {folder}{devices}"


def _is_unchanged(name: str, config: TrainConfig, stored: TrainConfig, state: Mapping[str, Any]) -> bool:
    """Whether an option has the effective value of the run, or the value that the run was started with."""
    requested = state.get("requested", {})
    return getattr(config, name) in (getattr(stored, name), _with_tuples(requested.get(name, getattr(stored, name))))


def _check_end(
    folder: Path, state: Mapping[str, Any], stored: TrainConfig, merged: TrainConfig, *, restarted: bool
) -> bool:
    """Whether all epochs are done. Raises UserError if the results of them are there, too."""
    epoch, best = int(state["progress"]["epoch"]), int(state["progress"]["best_epoch"]) + 1
    if merged.epochs < epoch and not restarted:
        fix = f"extend it: yolo train --resume {folder} --epochs {epoch + 50}"
        raise UserError(f"has finished {epoch} epochs, more than {merged.epochs}", where=folder, fix=fix)
    early = epoch < stored.epochs and 0 < merged.patience <= epoch - best
    finished = bool(state.get("ended")) and (merged.epochs <= epoch or early)
    if finished and not restarted and _evaluated_epochs(folder) == epoch:
        what = f"has finished its {epoch} epochs"
        if merged.epochs <= epoch:
            fix = f"extend it: yolo train --resume {folder} --epochs {epoch + 50}"
        else:
            what = f"stopped early after {epoch} epochs (--patience {merged.patience})"
            fix = f"extend it: yolo train --resume {folder} --patience 0"
        raise UserError(what, where=folder, fix=fix)
    return finished


def _evaluated_epochs(folder: Path) -> int:
    """The number of epochs in results.json, which a run writes last; 0 if there is none."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return content.get("epochs", 0) if isinstance(content, dict) else 0


def _with_tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _state_files(folder: Path) -> Sequence[Path]:
    return [path for name in (LAST, PREVIOUS) if (path := folder / "weights" / name).is_file()]


def _read_state(folder: Path, reporter: Reporter) -> tuple[Weights, Mapping[str, Any]]:
    """The newest state that can be read. A damaged one is reported, and the previous one is read instead."""
    failures: list[str] = []
    for path in _state_files(folder):
        try:
            weights = load_weights(path)
            state = weights.training
            if not state:
                raise UserError("contains only weights", where=path, fix=f"start from them: --weights {path}")
        except UserError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            reporter.warn(f"{failure}; continuing from {path.name}, saved before it")
        return weights, state
    raise UserError(failures[0] if failures else "contains no state", where="" if failures else folder)
