"""`yolo benchmark`: file size, mAP, latency and memory of a model in every export format that runs on this machine."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from yolo_cli.commands.export import ExportResult, requested_formats
from yolo_cli.commands.export import run as export
from yolo_cli.config import BenchmarkConfig, ExportConfig
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.splits import Split, checked_image_size, class_names, load_split, prepare_dataset
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.export.formats import FORMATS, format_of, missing_requirement
from yolo_cli.inference.latency import measure_in_process
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_json, write_options
from yolo_cli.weights.load import LoadedModel, load_model

PYTORCH = "pytorch"
BATCH = 16  # of the evaluation; latency is measured at batch size 1


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one format."""

    name: str
    megabytes: float  # of the file
    map50_95: float
    milliseconds: float  # per image
    memory: float  # peak of the whole process in MB
    precision: str  # of the images that the model takes: "float32" or "float16"
    same: bool | None  # whether detections equal PyTorch's; None for PyTorch, INT8, and without any detection

    def __str__(self) -> str:
        same = {True: "same as PyTorch", False: "DIFFERS from PyTorch", None: ""}[self.same]
        return (
            f"{self.name:>14} {self.megabytes:>8.1f} MB  mAP@.5:.95 {self.map50_95:.4f} "
            f"{self.milliseconds:>8.1f} ms per image {self.memory:>7.0f} MB of memory  {same}".rstrip()
        )


@dataclass(frozen=True, slots=True)
class Setup:
    """What every format is measured with."""

    config: BenchmarkConfig  # weights and image size as they are used
    device: torch.device
    split: Split
    classes: tuple[str, ...]
    folder: Path


def run(config: BenchmarkConfig, reporter: Reporter) -> list[Row]:
    """Export, evaluate and time every format. Raises UserError for the user's mistakes."""
    # Set up
    device = select_device(config.device)
    if kind := format_of(Path(config.weights)):
        fix = "give the checkpoint it was exported from"
        raise UserError(f"is an exported model ({kind})", where=config.weights, fix=fix)
    path = weights_or_newest(config.weights, config.project, reporter)
    formats = _formats(config, reporter)
    model = load_model(path, device, reporter, cfg=config.cfg, half=pytorch_in_half(config, device))
    config = replace(config, weights=str(path), img=checked_image_size(config.img, model.stride, reporter))
    spec = prepare_dataset(config.data, reporter)
    classes = class_names(spec, single_cls=False)
    if len(classes) != len(model.names):
        what = f"has {len(classes)} classes, but {path} has {len(model.names)}"
        raise UserError(what, where=config.data, fix="give the dataset that it was trained on")
    workers = default_workers(-1, BATCH)
    split = load_split(spec, "val", single_cls=False, strict=False, workers=workers, reporter=reporter)
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    write_options(folder / "opt.yaml", config)
    setup = Setup(config, device, split, classes, folder)

    # Measure
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        reporter.info(str(row))
        write_json(folder / "benchmark.json", [asdict(row) for row in rows])  # an interrupted run keeps these

    add(measured_row(setup, PYTORCH, model, path.stat().st_size / 1e6, None, reporter))
    for name in formats:
        try:
            row = _exported_row(setup, name, reporter)
        except UserError as error:
            reporter.warn(str(error))
            continue
        add(row)

    # Report
    from yolo_cli.plots.speed import speed_figure  # noqa: PLC0415 - matplotlib is slow to import

    speed_figure([(row.name, row.milliseconds, row.map50_95) for row in rows], folder / "benchmark.png")
    reporter.info(f"results in {folder}")
    return rows


def pytorch_in_half(config: BenchmarkConfig, device: torch.device) -> bool:
    """Whether PyTorch runs in half precision: only on a GPU, because on the CPU that is slower than FP32."""
    return config.half and device.type == "cuda"


def _formats(config: BenchmarkConfig, reporter: Reporter) -> list[str]:
    """The requested formats, or all that run on this machine. Raises UserError for a format that cannot run."""
    if config.include:
        options = ExportConfig(
            include=config.include, half=config.half, int8=config.int8, data=config.data, device=config.device
        )
        chosen = list(requested_formats(options))
        for name in chosen:
            if FORMATS[name].open is None:
                raise UserError(FORMATS[name].experimental, where=f"--include {name}", fix="leave it out")
        return chosen
    found = []
    for name, known in FORMATS.items():
        able = all(getattr(known, option) or not getattr(config, option) for option in ("half", "int8"))
        why = known.experimental if known.open is None else missing_requirement(name)
        if why:
            reporter.info(f"{name} skipped: {why}")
        elif able:
            found.append(name)
    return found


def _exported_row(setup: Setup, name: str, reporter: Reporter) -> Row:
    """Export to a format and measure the file. Raises UserError where the format cannot be written or run."""
    config = setup.config
    options = ExportConfig(
        weights=config.weights,
        include=name,
        cfg=config.cfg,
        img=config.img,
        half=config.half,
        int8=config.int8,
        data=config.data if config.int8 else "",
        device=config.device,
        project=str(setup.folder),
        name=name,
    )
    (written,) = export(options, Silent())
    model = load_model(written.path, setup.device, Silent())
    return measured_row(setup, name, model, written.megabytes, _same(written), reporter)


def _same(written: ExportResult) -> bool | None:
    parity = written.parity
    if parity is None or parity.tolerance is None or (parity.passed and not parity.compared):
        return None
    return parity.passed


def measured_row(
    setup: Setup, name: str, model: LoadedModel, megabytes: float, same: bool | None, reporter: Reporter
) -> Row:
    """Evaluate and time a model, both in the same precision."""
    config = setup.config
    # ExportResult files take FP32 images, whatever the precision of their weights.
    half = model.weights is not None and model.runtime.metadata.half
    loader = val_loader(
        setup.split.index,
        img=config.img,
        batch=BATCH,
        stride=model.stride,
        workers=default_workers(-1, BATCH),
        rect=False,  # exported files have a fixed image size
    )
    evaluation = evaluate(
        model.runtime,
        EvalDataset(loader, setup.split.index),
        Evaluator(setup.classes),
        EvalOptions(half=half),
        device=setup.device,
        reporter=reporter,
    )
    cfg = config.cfg if model.weights is not None else ""
    latency = measure_in_process(
        model.path, cfg=cfg, device=config.device, img=config.img, images=config.images, half=half
    )
    return Row(
        name,
        megabytes,
        evaluation.metrics.map50_95,
        latency.milliseconds,
        latency.megabytes,
        latency.dtype,
        same,
    )
