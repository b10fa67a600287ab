"""`yolo train --repeats N`: one recipe with consecutive seeds, and what its metrics vary by."""

import gc
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from yolo_cli.commands.train import needs_launch, run, run_per_device
from yolo_cli.config import TrainConfig
from yolo_cli.errors import StoppedError, UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import MAX_RUNS, write_json
from yolo_cli.train.resume import FREE, find_run, is_finished

METRICS = ("precision", "recall", "F1", "mAP_0.5", "mAP_0.5:0.95")
MAIN = METRICS[-1]  # decides which run is the best
REPORT = "repeats.json"  # in the folder of the first run
_MEMBER = re.compile(r"(?P<first>.+)-seed\d+")


@dataclass(frozen=True, slots=True)
class Member:
    """One run of the group."""

    folder: Path
    seed: int
    config: TrainConfig | None  # how to train or continue it; None if it is finished
    given: frozenset[str] = frozenset()  # the options that must agree with those of a continued run

    def arguments(self) -> list[str]:
        """The command line of this run, for the processes of several devices."""
        assert self.config is not None
        words = ["train"]
        default = TrainConfig()
        for name in (field.name for field in fields(TrainConfig)):
            value = getattr(self.config, name)
            if value == getattr(default, name) and name not in self.given:
                continue
            if isinstance(value, bool):
                words += [f"--{name.replace('_', '-')}"] if value else []
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += [f"--{name.replace('_', '-')}", text]
        return words


@dataclass(frozen=True, slots=True)
class RepeatsResult:
    """The metrics of a group of runs: mean over the runs, and the standard error of the mean."""

    folders: tuple[Path, ...]
    mean: dict[str, float]
    standard_error: dict[str, float]
    best: Path


def run_repeats(config: TrainConfig, reporter: Reporter, *, given: AbstractSet[str]) -> RepeatsResult | int:
    """Train `config.repeats` runs one after the other, and report on them.

    With `config.resume`, finished runs of the group are kept, an interrupted one is continued, and missing ones are
    trained with the options of the first.

    Returns the result, or the exit status of a run on several devices that failed.

    Raises:
        UserError: for everything that the user can correct. Runs that are finished stay.
        StoppedError: if a signal ended the training. The state of the current run is saved.
    """
    if "RANK" in os.environ:
        fix = "start it without torchrun; --device 0,1 trains each run on several devices"
        raise UserError("trains several runs, but a launcher started one job", where="--repeats", fix=fix)
    members = list(_continued(config, given) if config.resume else _new(config, given))
    first = members[0].folder
    for number, member in enumerate(members, start=1):
        title = f"run {number} of {len(members)}, seed {member.seed}: {member.folder}"
        if member.config is None:
            reporter.info(f"{title} is finished")
            continue
        reporter.info(title)
        try:
            status = _train(member, reporter)
        except (StoppedError, KeyboardInterrupt):  # the latter before a run has trained anything
            devices = f" --device {config.device}" if "," in config.device else ""
            hint = f"yolo train --repeats {config.repeats} --resume {first}{devices}"
            reporter.info(f"to continue this run and train those that are missing: {hint}")
            raise
        if status:
            return status
        gc.collect()  # else the former run's tensors stay until Python happens to look for cycles
    return _report([member.folder for member in members], reporter)


def _train(member: Member, reporter: Reporter) -> int:
    """Train or continue one run; returns the exit status."""
    assert member.config is not None
    if needs_launch(member.config):
        return run_per_device(member.config, member.arguments())
    run(member.config, reporter, given=member.given)
    return 0


def _new(config: TrainConfig, given: AbstractSet[str]) -> Iterator[Member]:
    """Runs that begin now: NAME and NAME-seedN, or with a number where one of these folders exists."""
    project = Path(os.path.expanduser(config.project))
    seeds = range(config.seed, config.seed + config.repeats)
    name = config.name if config.exist_ok else _free_name(project, config.name, seeds)
    for seed, folder in zip(seeds, _folders(project / name, seeds), strict=True):
        own = replace(config, name=folder.name, seed=seed, repeats=1)
        yield Member(folder, seed, own, frozenset(given))


def _continued(config: TrainConfig, given: AbstractSet[str]) -> Iterator[Member]:
    """The runs of the group that `--resume` names by its first run or by any other."""
    named = find_run(config)
    if (match := _MEMBER.fullmatch(named.name)) and (named.parent / match["first"] / "opt.yaml").is_file():
        named = named.parent / match["first"]
    options = _options_of(named)
    fixed = sorted(given - FREE - {"repeats"})
    if changed := [name for name in fixed if getattr(config, name) != getattr(options, name)]:
        name = changed[0]
        what = f"options differ from the first run's: --{name.replace('_', '-')} {getattr(config, name)}"
        raise UserError(what, where=named, fix="omit them, or start new runs")
    now = {name: getattr(config, name) for name in given & FREE if name not in ("project", "name", "exist_ok")}
    seeds = range(options.seed, options.seed + config.repeats)
    for seed, folder in zip(seeds, _folders(named, seeds), strict=True):
        if is_finished(folder, config.epochs if "epochs" in given else options.epochs):
            yield Member(folder, seed, None)
        elif (folder / "weights" / "last.pt").is_file():
            continued = replace(config, resume=str(folder), repeats=1)
            yield Member(folder, seed, continued, frozenset(given - {"repeats", "seed"}))
        else:
            # Its folder may exist, without a state yet.
            place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "resume": ""}
            yield Member(folder, seed, replace(options, **{**now, **place, "seed": seed, "repeats": 1}))


def _folders(first: Path, seeds: Sequence[int]) -> list[Path]:
    return [first, *(first.with_name(f"{first.name}-seed{seed}") for seed in seeds[1:])]


def _free_name(project: Path, name: str, seeds: Sequence[int]) -> str:
    """NAME, NAME2, … : the first one of which no run of the group exists."""
    for number in range(1, MAX_RUNS):
        numbered = name if number == 1 else f"{name}{number}"
        if not any(folder.exists() for folder in _folders(project / numbered, seeds)):
            return numbered
    raise UserError("too many runs", where=project, fix="give another --name")


def _options_of(folder: Path) -> TrainConfig:
    """The options of a run. Raises UserError if they are not readable."""
    stored = read_mapping(folder / "opt.yaml")
    names = {field.name for field in fields(TrainConfig)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in names}
    try:
        return TrainConfig(**values)
    except (TypeError, ValueError):
        raise UserError("its options are not valid", where=folder / "opt.yaml", fix="start new runs") from None


def _report(folders: Sequence[Path], reporter: Reporter) -> RepeatsResult:
    """Write repeats.json into the first folder, and print the table."""
    rows = [_metrics_of(folder) for folder in folders]
    mean = {metric: fmean(row[metric] for row in rows) for metric in METRICS}
    error = {metric: stdev(row[metric] for row in rows) / math.sqrt(len(rows)) for metric in METRICS}
    best = folders[max(range(len(rows)), key=lambda i: -1.0 if math.isnan(rows[i][MAIN]) else rows[i][MAIN])]
    write_json(
        folders[0] / REPORT,
        {
            "runs": [{"folder": f.name, "metrics": row} for f, row in zip(folders, rows, strict=True)],
            "mean": mean,
            "standard_error": error,
            "best": best.name,
        },
    )
    reporter.info(_line("run", METRICS))
    for folder, row in zip(folders, rows, strict=True):
        reporter.info(_line(folder.name, [f"{row[metric]:.4f}" for metric in METRICS]))
    reporter.info(_line("mean ± standard error", [f"{mean[m]:.4f} ± {error[m]:.4f}" for m in METRICS]))
    reporter.info(f"the best is {best}; the mean is what another training of this recipe is expected to give")
    reporter.info(f"compare it with another recipe: yolo compare BASE '{folders[0]}{{,-seed*}}'")
    return RepeatsResult(tuple(folders), mean, error, best)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name[-24:]:>24}" + "".join(f"{cell:>18}" for cell in cells)


def _metrics_of(folder: Path) -> dict[str, float]:
    """Metrics of results.json; nan for unknown ones. Raises UserError if the file is missing or damaged."""
    path = folder / "results.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return {name: math.nan if metrics[name] is None else float(metrics[name]) for name in METRICS}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError("is missing or damaged", where=path, fix=f"evaluate it: yolo val --weights {folder}") from None
