"""`yolo export`: write a model in other formats, and check that each file gives the same detections as PyTorch."""

import copy
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from yolo_cli.config import ExportConfig
from yolo_cli.config.thresholds import SavedThresholds, resolve_conf
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.splits import Split, checked_image_size, class_names, load_split, prepare_dataset
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.export.formats import (
    FORMATS,
    Format,
    exported_megabytes,
    find_format,
    format_of,
    missing_requirement,
    open_exported,
    write_exported,
)
from yolo_cli.export.metadata import Metadata, NMSSettings
from yolo_cli.export.parity import ParityReport, check_parity
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.samples import SampleImages
from yolo_cli.export.spec import ExportSpec
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Reporter
from yolo_cli.run import provenance
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_json, write_options
from yolo_cli.weights.load import check_cfg, load_weights

PARITY_IMAGES, CALIBRATION_IMAGES = 16, 128
EVALUATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A file that was written, and how it compares with PyTorch."""

    name: str  # of the format
    path: Path
    metadata: Metadata
    seconds: float
    megabytes: float
    parity: ParityReport | None = None
    map50_95: tuple[float, float] | None = None  # PyTorch's and the file's

    def to_mapping(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "file": self.path.name,
            "seconds": self.seconds,
            "megabytes": self.megabytes,
            "metadata": self.metadata.to_text(),
            "proof": self.parity.to_mapping() if self.parity else None,
            "mAP_0.5:0.95": {"pytorch": self.map50_95[0], "file": self.map50_95[1]} if self.map50_95 else None,
        }


@dataclass(frozen=True, slots=True)
class ExportData:
    """The splits of `--data`."""

    val: Split
    calibration: Split
    names: tuple[str, ...]


def run(config: ExportConfig, reporter: Reporter) -> list[ExportResult]:
    """Write the requested formats, check each, and write the report. Raises UserError for the user's mistakes."""
    # Set up
    formats = requested_formats(config)
    device = select_device(config.device)
    weights = weights_or_newest(config.weights, config.project, reporter)
    if kind := format_of(weights):
        raise UserError(f"is an exported model ({kind})", where=weights, fix="give the checkpoint it was exported from")
    check_cfg(weights, config.cfg)
    loaded = load_weights(weights, cfg=config.cfg, reporter=reporter)
    model, thresholds = loaded.build_model(), loaded.thresholds
    nms = NMSSettings(resolve_conf(config.conf, model.names, thresholds), config.iou, config.max_det)
    model = fuse(model.to(device).eval())
    img = checked_image_size(config.img, model.stride, reporter)
    config = replace(config, weights=str(weights), img=img)
    data = open_export_data(config, model, reporter) if config.data else None
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    targets = {name: fmt.path(folder / weights.name) for name, fmt in formats.items()}
    for target in targets.values():
        if target.exists():
            raise UserError("exists already", where=target, fix="give another --name, or remove it first")
    earlier = _formats_of_report(folder / "report.json")
    write_options(folder / "opt.yaml", config)

    # Work
    results: list[ExportResult] = []
    try:
        for name, target in targets.items():
            result = _export(name, target, config, model, nms, thresholds, data, device, reporter)
            if config.verify:
                result = _verify(result, nms, model, data, device, reporter)
            results.append(result)
    finally:  # Report, also where a later format fails
        written = earlier | {result.name: result.to_mapping() for result in results}
        report = {"weights": str(weights), "formats": written, "versions": provenance.versions()}
        write_json(folder / "report.json", report)
    reporter.info(f"results in {folder}")
    return results


def requested_formats(config: ExportConfig) -> dict[str, Format]:
    """The formats of `--include`. Raises UserError for those that are unknown, not installed, or lack an option."""
    names = [name for name in config.include.replace(" ", ",").split(",") if name]
    if not names:
        raise UserError("names no format", where="--include", fix=f"known are {', '.join(FORMATS)}")
    formats = {name: find_format(name) for name in names}
    for option in ("dynamic", "half", "int8", "nms"):
        unsupported = [name for name, fmt in formats.items() if not getattr(fmt, option)]
        if getattr(config, option) and unsupported:
            supported = ", ".join(name for name, fmt in FORMATS.items() if getattr(fmt, option))
            what = f"{unsupported[0]} does not support it"
            raise UserError(what, where=f"--{option}", fix=f"formats that do: {supported}")
    for name in formats:
        if missing := missing_requirement(name):
            raise UserError(missing, where=f"--include {name}")
    return formats


def open_export_data(config: ExportConfig, model: DetectionModel, reporter: Reporter) -> ExportData:
    """The validation split of `--data`, and for INT8 the training split. Raises UserError where the classes differ."""
    spec = prepare_dataset(config.data, reporter)
    names = class_names(spec, single_cls=False)
    if len(names) != model.nc:
        what = f"has {len(names)} classes, but {config.weights} has {model.nc}"
        raise UserError(what, where=config.data, fix="give the dataset that it was trained on")
    workers = default_workers(-1, EVALUATION_BATCH)
    splits = {
        task: load_split(spec, task, single_cls=False, strict=False, workers=workers, reporter=reporter)
        for task in (("val", "train") if config.int8 else ("val",))
    }
    return ExportData(splits["val"], splits.get("train", splits["val"]), names)


def _formats_of_report(path: Path) -> dict[str, Any]:
    """The formats of an earlier report in the same folder. Raises UserError for a file that is no such report."""
    if not path.exists():
        return {}
    try:
        formats = json.loads(path.read_text(encoding="utf-8"))["formats"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        formats = None
    if not isinstance(formats, dict):
        raise UserError("is not the report of an export", where=path, fix="give another --name, or remove it first")
    return formats


def _export(
    name: str,
    path: Path,
    config: ExportConfig,
    model: DetectionModel,
    nms: NMSSettings,
    thresholds: SavedThresholds | None,
    data: ExportData | None,
    device: torch.device,
    reporter: Reporter,
) -> ExportResult:
    if experimental := FORMATS[name].experimental:
        reporter.warn(f"{name} is experimental: {experimental}")
    metadata = Metadata(
        model.names,
        model.stride,
        config.img,
        config.batch,
        config.dynamic,
        config.half,
        config.int8,
        nms if config.nms else None,
        model.architecture.name,
        thresholds=thresholds,
    )
    calibration = SampleImages(data.calibration.index, CALIBRATION_IMAGES) if data and config.int8 else None
    # A copy, because formats change the model: half precision, a head without decoding.
    spec = ExportSpec(copy.deepcopy(model), metadata, config.opset, config.simplify, device, calibration)
    start = time.perf_counter()
    write_exported(name, spec, path)
    result = ExportResult(name, path, metadata, time.perf_counter() - start, exported_megabytes(path))
    reporter.info(f"{name}: wrote {path}, {result.megabytes:.1f} MB in {result.seconds:.1f} s")
    return result


def _verify(
    result: ExportResult,
    thresholds: NMSSettings,
    model: DetectionModel,
    data: ExportData | None,
    device: torch.device,
    reporter: Reporter,
) -> ExportResult:
    """The result with its parity report and, with a dataset, its mAP. Both are printed."""
    if FORMATS[result.name].open is None:
        reporter.warn(f"{result.name}: not verified, because it cannot run here")
        return result
    # A copy, because TorchRuntime changes the memory format of the weights, which some exporters do not support.
    runtime, reference = open_exported(result.path, device), TorchRuntime(copy.deepcopy(model), device)
    if runtime.metadata != result.metadata:
        raise UserError("does not read back as it was written", where=result.path, fix="report this as a bug")
    samples = SampleImages(data.val.index if data else None, PARITY_IMAGES)
    parity = check_parity(runtime, reference, samples, thresholds, device)
    for line in parity.summary():
        reporter.info(f"{result.name}: {line}")
    for line in parity.warnings(with_data=data is not None):
        reporter.warn(f"{result.name}: {line}")
    if data is None:
        return replace(result, parity=parity)
    map50_95 = _evaluate_both(runtime, reference, data, device, reporter)
    difference = map50_95[1] - map50_95[0]
    if math.isnan(difference):
        reporter.info(f"{result.name}: mAP@.5:.95 unknown: the dataset has no objects")
    else:
        compared = f"{map50_95[1]:.4f}, PyTorch {map50_95[0]:.4f} ({difference:+.4f})"
        reporter.info(f"{result.name}: mAP@.5:.95 {compared}")
    return replace(result, parity=parity, map50_95=map50_95)


def _evaluate_both(
    runtime: Runtime, reference: Runtime, data: ExportData, device: torch.device, reporter: Reporter
) -> tuple[float, float]:
    """mAP@0.5:0.95 of PyTorch and of the file on the validation split, at the same image sizes and thresholds."""
    metadata = runtime.metadata
    nms = metadata.nms
    options = EvalOptions(nms.conf, nms.iou, nms.max_det, multi_label=False) if nms else EvalOptions()
    values = []
    # A file with NMS inside gives detections, which must not go through NMS again.
    for model, own in ((reference, options), (runtime, replace(options, iou=1.0) if nms else options)):
        loader = val_loader(
            data.val.index,
            img=metadata.img,
            batch=EVALUATION_BATCH,
            stride=metadata.stride,
            workers=default_workers(-1, EVALUATION_BATCH),
            rect=metadata.dynamic,
        )
        evaluation = evaluate(
            model,
            EvalDataset(loader, data.val.index),
            Evaluator(data.names),
            own,
            device=device,
            reporter=reporter,
        )
        values.append(evaluation.metrics.map50_95)
    return values[0], values[1]
