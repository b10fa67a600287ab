"""`yolo benchmark`: size, average precision, speed and memory of a model in every format that runs here."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from yolo_cli.commands.export import Exported, requested_formats
from yolo_cli.commands.export import run as export
from yolo_cli.config import BenchmarkConfig, ExportConfig
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.splits import Split, checked_image_size, class_names, open_data, open_split
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.evaluate import Thresholds, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.export.formats import FORMATS, format_of, lacking
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_json, write_options
from yolo_cli.weights.load import LoadedModel, load_model

PYTORCH = "pytorch"
BATCH = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    megabytes: float
    map50_95: float
    milliseconds: float
    memory: float  # MB, the whole process at its most
    same: bool | None  # as PyTorch; None for PyTorch itself, for 8 bits, and where nothing was found to compare


def run(config: BenchmarkConfig, reporter: Reporter) -> list[Row]:
    """Write, judge and time every format. Raises UserError for anything that the user can mend."""
    device = select_device(config.device)
    path = weights_or_newest(config.weights, config.project, reporter)
    if kind := format_of(path):
        raise UserError(f"is itself exported ({kind})", where=path, fix="give the checkpoint it was made from")
    names = _formats(config, reporter)
    opened = load_model(path, device, reporter, cfg=config.cfg)
    img = checked_image_size(config.img, opened.stride, reporter)
    config = replace(config, weights=str(path), img=img)
    spec = open_data(config.data, reporter)
    classes = class_names(spec, single_cls=False)
    if len(classes) != len(opened.names):
        what = f"has {len(classes)} classes, but {path} knows {len(opened.names)}"
        raise UserError(what, where=config.data, fix="give the data set that it was trained on")
    workers = default_workers(-1, BATCH)
    split = open_split(spec, "val", single_cls=False, strict=False, workers=workers, reporter=reporter)
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    write_options(folder / "opt.yaml", config)
    size = path.stat().st_size / 1e6
    rows = [_row(config, PYTORCH, path, size, _average_precision(opened, split, config, classes, reporter), None)]
    reporter.info(table_line(rows[0]))
    for name in names:
        rows += _measured(config, name, path, folder, split, classes, reporter)
        write_json(folder / "benchmark.json", [asdict(row) for row in rows])  # what an interrupted run leaves
    from yolo_cli.plots.speed import draw_speed  # noqa: PLC0415 - matplotlib is slow to import

    draw_speed(folder / "benchmark.png", [(row.name, row.milliseconds, row.map50_95) for row in rows])
    reporter.info(f"results in {folder}")
    return rows


def table_line(row: Row) -> str:
    """A row in words, columns aligned."""
    same = {True: "same as PyTorch", False: "DIFFERS from PyTorch", None: ""}[row.same]
    return (
        f"{row.name:>14} {row.megabytes:>8.1f} MB  mAP@.5:.95 {row.map50_95:.4f} {row.milliseconds:>8.1f} ms an image "
        f"{row.memory:>7.0f} MB of memory  {same}".rstrip()
    )


def _formats(config: BenchmarkConfig, reporter: Reporter) -> list[str]:
    """The formats asked for, or all that run here; why others do not is said. Raises UserError for what cannot be."""
    if config.include:
        options = ExportConfig(
            include=config.include, half=config.half, int8=config.int8, data=config.data, device=config.device
        )
        for name in (chosen := requested_formats(options)):
            if FORMATS[name].open is None:
                raise UserError(FORMATS[name].experimental, where=f"--include {name}", fix="leave it out")
        return list(chosen)
    found = []
    for name, known in FORMATS.items():
        able = all(getattr(known, option) or not getattr(config, option) for option in ("half", "int8"))
        why = known.experimental if known.open is None else lacking(name)
        if why:
            reporter.info(f"{name} left out: {why}")
        elif able:
            found.append(name)
    return found


def _measured(
    config: BenchmarkConfig,
    name: str,
    weights: Path,
    folder: Path,
    split: Split,
    classes: tuple[str, ...],
    reporter: Reporter,
) -> list[Row]:
    """The format's row; none, with a warning, where it could not be written."""
    options = ExportConfig(
        weights=str(weights),
        include=name,
        cfg=config.cfg,
        img=config.img,
        half=config.half,
        int8=config.int8,
        data=config.data if config.int8 else "",
        device=config.device,
        project=str(folder),
        name=name,
    )
    try:
        (written,) = export(options, Silent())
        opened = load_model(written.path, select_device(config.device), Silent())
        ap = _average_precision(opened, split, config, classes, reporter)
        row = _row(config, name, written.path, written.megabytes, ap, _same(written))
    except UserError as error:
        reporter.warn(str(error))
        return []
    reporter.info(table_line(row))
    return [row]


def _same(written: Exported) -> bool | None:
    proof = written.proof
    judged = proof is not None and proof.tolerance is not None and (proof.compared or not proof.passed)
    return proof.passed if proof is not None and judged else None


def _average_precision(
    opened: LoadedModel, split: Split, config: BenchmarkConfig, classes: tuple[str, ...], reporter: Reporter
) -> float:
    """On canvases of the one size that files are made for, PyTorch's too."""
    loader = val_loader(
        split.index, img=config.img, batch=BATCH, stride=opened.stride, workers=default_workers(-1, BATCH), rect=False
    )
    evaluation = evaluate(
        opened.runtime,
        loader,
        split.index,
        Evaluator(classes),
        thresholds=Thresholds(),
        device=select_device(config.device),
        reporter=reporter,
        batches=len(loader),
    )
    return evaluation.metrics.map50_95


def _row(config: BenchmarkConfig, name: str, path: Path, size: float, ap: float, same: bool | None) -> Row:
    half = "half" if config.half and name == PYTORCH and select_device(config.device).type == "cuda" else "single"
    height, width = config.img
    words = [str(path), config.cfg, config.device, str(height), str(width), str(config.images), half]
    command = [sys.executable, "-m", "yolo_cli.commands.measure", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"could not be measured ({last[:160]})", where=path)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Row(name, size, ap, found["milliseconds"], found["megabytes"], same)
