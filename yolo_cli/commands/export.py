"""`yolo export`: a model into files of other runtimes, each proven against PyTorch."""

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.config import ExportConfig
from yolo_cli.dataset.loader import val_loader
from yolo_cli.dataset.splits import Split, checked_image_size, class_names, load_split, prepare_dataset
from yolo_cli.device import default_workers, select_device
from yolo_cli.errors import UserError
from yolo_cli.evaluation.evaluate import Thresholds, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.export.formats import FORMATS, Format, find_format, format_of, lacking, open_exported
from yolo_cli.export.metadata import Metadata, Suppression
from yolo_cli.export.request import Request
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.samples import Samples
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.export.verify import ParityReport, check_parity, telling_confidence
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Reporter
from yolo_cli.run import provenance
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_json, write_options
from yolo_cli.weights.load import check_cfg, load_weights

PROOF_IMAGES, CALIBRATION_IMAGES = 16, 128
AP_BATCH = 16
LEAST_TELLING = 0.001  # confidence below which no difference of scores could exceed the tolerance


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written, and how it fared."""

    name: str
    path: Path
    metadata: Metadata
    seconds: float
    megabytes: float
    proof: ParityReport | None = None
    average_precision: tuple[float, float] | None = None  # mAP@0.5:0.95 of PyTorch and of the file

    def to_mapping(self) -> dict[str, Any]:
        """For report.json."""
        ap = self.average_precision
        return {
            "file": self.path.name,
            "seconds": self.seconds,
            "megabytes": self.megabytes,
            "metadata": self.metadata.to_text(),
            "proof": self.proof.to_mapping() if self.proof else None,
            "mAP_0.5:0.95": {"pytorch": ap[0], "file": ap[1]} if ap else None,
        }


@dataclass(frozen=True, slots=True)
class _Data:
    """The data set of `--data`, where one is given."""

    judged: Split
    calibration: Split
    names: tuple[str, ...]


def run(config: ExportConfig, reporter: Reporter) -> list[Exported]:
    """Write what is asked for, prove it, report. Raises UserError for anything that the user can mend."""
    chosen = requested_formats(config)
    device = select_device(config.device)
    path = weights_or_newest(config.weights, config.project, reporter)
    if kind := format_of(path):
        raise UserError(f"is itself exported ({kind})", where=path, fix="give the checkpoint it was made from")
    check_cfg(path, config.cfg)
    weights = load_weights(path, cfg=config.cfg, reporter=reporter)
    model = fuse(weights.build_model().to(device).eval())
    img = checked_image_size(config.img, model.stride, reporter)
    config = replace(config, weights=str(path), img=img)
    data = _open_data(config, model, reporter) if config.data else None
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    for known in chosen.values():
        if (target := known.path(folder / path.name)).exists():
            raise UserError("exists already", where=target, fix="give another --name, or remove it first")
    earlier = _earlier(folder / "report.json")
    write_options(folder / "opt.yaml", config)
    done: list[Exported] = []
    try:
        for name, known in chosen.items():
            done.append(_export_one(name, known, config, model, path, folder, data, device, reporter))
    finally:
        report = {"weights": str(path), "formats": earlier | {one.name: one.to_mapping() for one in done}}
        write_json(folder / "report.json", {**report, "versions": provenance.versions()})
    reporter.info(f"results in {folder}")
    return done


def _earlier(path: Path) -> dict[str, Any]:
    """What an earlier export into the same folder reported. Raises UserError for a report of another kind."""
    if not path.exists():
        return {}
    try:
        formats = json.loads(path.read_text(encoding="utf-8"))["formats"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        formats = None
    if not isinstance(formats, dict):
        raise UserError("is no report of an export", where=path, fix="give another --name, or remove it first")
    return formats


def requested_formats(config: ExportConfig) -> dict[str, Format]:
    """The formats asked for. Raises UserError for those that are unknown or cannot do what is asked."""
    names = [word for word in config.include.replace(" ", ",").split(",") if word]
    if not names:
        raise UserError("names no format", where="--include", fix=f"known are {', '.join(FORMATS)}")
    chosen = {name: find_format(name) for name in names}
    for option in ("dynamic", "half", "int8", "nms"):
        unable = [name for name, known in chosen.items() if not getattr(known, option)]
        if getattr(config, option) and unable:
            able = ", ".join(name for name, known in FORMATS.items() if getattr(known, option))
            raise UserError(f"{unable[0]} cannot have it", where=f"--{option}", fix=f"those that can: {able}")
    for name in chosen:
        if missing := lacking(name):
            raise UserError(missing, where=f"--include {name}")
    return chosen


def _open_data(config: ExportConfig, model: DetectionModel, reporter: Reporter) -> _Data:
    spec = prepare_dataset(config.data, reporter)
    names = class_names(spec, single_cls=False)
    if len(names) != model.nc:
        what = f"has {len(names)} classes, but {config.weights} knows {model.nc}"
        raise UserError(what, where=config.data, fix="give the data set that it was trained on")
    workers = default_workers(-1, AP_BATCH)
    splits = {
        task: load_split(spec, task, single_cls=False, strict=False, workers=workers, reporter=reporter)
        for task in (("val", "train") if config.int8 else ("val",))
    }
    return _Data(splits["val"], splits.get("train", splits["val"]), names)


def _export_one(
    name: str,
    known: Format,
    config: ExportConfig,
    model: DetectionModel,
    weights: Path,
    folder: Path,
    data: _Data | None,
    device: torch.device,
    reporter: Reporter,
) -> Exported:
    if known.experimental:
        reporter.warn(f"{name} is experimental: {known.experimental}")
    path = known.path(folder / weights.name)
    nms = Suppression(config.conf, config.iou, config.max_det) if config.nms else None
    about = Metadata(
        model.names,
        model.stride,
        config.img,
        config.batch,
        config.dynamic,
        config.half,
        config.int8,
        nms,
        model.architecture.name,
    )
    # Formats change the model that they are given: half precision, a head without its decoding.
    own = copy.deepcopy(model)
    request = Request(own, about, config.opset, config.simplify, device, _calibration(data, about))
    start = time.perf_counter()
    _write(name, known, request, path)
    written = Exported(name, path, about, time.perf_counter() - start, _megabytes(path))
    reporter.info(f"{name}: wrote {path}, {written.megabytes:.1f} MB in {written.seconds:.1f} s")
    if not config.verify:
        return written
    if known.open is None:
        reporter.warn(f"{name}: not proven: {known.experimental}")
        return written
    return _proven(written, model, config, data, device, reporter)


def _write(name: str, known: Format, request: Request, path: Path) -> None:
    """Write a file or folder whole or not at all. Raises UserError where the format's package fails."""
    try:
        known.write(request, path)
    except BaseException as error:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        # Packages raise what they like where they cannot express a network.
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"could not be written ({detail})", where=f"--include {name}") from error


def _calibration(data: _Data | None, about: Metadata) -> Any:
    if data is None or not about.int8:
        return None
    samples = Samples(data.calibration.index, CALIBRATION_IMAGES)
    size = about.batch

    def images() -> Iterator[Float[Tensor, "b 3 h w"]]:
        # A batch that is not full would not fit a file of one size: images come twice rather than too few.
        for _, batch in samples.batches(about.img, size):
            yield batch[torch.arange(size) % len(batch)]

    return images


def _proven(
    written: Exported,
    model: DetectionModel,
    config: ExportConfig,
    data: _Data | None,
    device: torch.device,
    reporter: Reporter,
) -> Exported:
    """The file with its proof, which is said; with a data set, its average precision, too."""
    # A copy, since it changes how weights lie in memory, which some exporters stumble over.
    runtime, reference = open_exported(written.path, device), TorchRuntime(copy.deepcopy(model), device)
    if runtime.metadata != written.metadata:
        raise UserError("does not read back as it was written", where=written.path, fix="report this as a bug")
    samples = Samples(data.judged.index if data else None, PROOF_IMAGES)
    about = written.metadata
    thresholds = Suppression(config.conf, config.iou, config.max_det)
    if about.nms is None:
        conf = telling_confidence(reference, _batches(samples, about, device), thresholds)
        thresholds = replace(thresholds, conf=conf)
    proof = check_parity(runtime, reference, _batches(samples, about, device), thresholds)
    for line in proof_lines(written.name, proof):
        reporter.info(line)
    if proof.passed and not proof.compared:
        fix = "give --data, images of what it knows" if data is None else "lower --conf"
        reporter.warn(f"{written.name}: proves little, since neither finds anything; {fix}")
    elif proof.conf < LEAST_TELLING:
        reporter.warn(f"{written.name}: proves boxes alone, since the model is sure of nothing; train it longer")
    for line in proof.where[:5]:
        reporter.warn(f"{written.name}: {line}")
    ap = _average_precision(runtime, reference, data, device, reporter) if data else None
    if ap:
        difference = ap[1] - ap[0]
        known = f"{ap[1]:.4f}, by PyTorch {ap[0]:.4f} ({difference:+.4f})"
        labelled = not math.isnan(difference)
        reporter.info(f"{written.name}: mAP@.5:.95 {known if labelled else 'unknown: the data set shows no object'}")
    return replace(written, proof=proof, average_precision=ap)


def _batches(
    samples: Samples, about: Metadata, device: torch.device
) -> Iterator[tuple[Sequence[str], Float[Tensor, "b 3 h w"]]]:
    """The images on the file's canvas; where sizes are free, some also on a smaller one, in another batch."""
    sizes = [(about.img, about.batch, 0)]
    if about.dynamic:
        height, width = about.img
        # Captured programs take two strides or more where sides are free.
        low, high = (max(count, 2) * about.stride for count in (height // 2 // about.stride, width // about.stride - 1))
        smaller = (min(low, height), min(high, width))
        sizes.append((smaller, about.batch + 1, 4))
    for canvas, size, count in sizes:
        for names, images in samples.batches(canvas, size, count):
            yield names, images.to(device)


def proof_lines(name: str, proof: ParityReport) -> list[str]:
    """A proof in words."""
    counts = f"{proof.matched} of {proof.detections} detections on {proof.images} images are the same"
    counts += f" at confidence {proof.conf:g}"
    lonely = proof.only_pytorch + proof.only_file
    counts += f", {lonely} in one alone ({proof.borderline} at the threshold)" if lonely else ""
    box, score = proof.box_difference, proof.score_difference
    limit = f"; allowed {proof.tolerance:g}" if proof.tolerance is not None else "; reported, not judged"
    lines = [f"{name}: {counts}; largest difference: box {box:.1e} of the side, score {score:.1e}{limit}"]
    if proof.row_score_difference or proof.row_box_difference:
        rows = f"box {proof.row_box_difference:.1e}, score {proof.row_score_difference:.1e}"
        lines.append(f"{name}: before suppression: {rows}")
    if proof.tolerance is not None and (proof.compared or not proof.passed):
        lines.append(f"{name}: {'the same as PyTorch' if proof.passed else 'DIFFERS from PyTorch'}")
    return lines


def _average_precision(
    runtime: Runtime, reference: Runtime, data: _Data, device: torch.device, reporter: Reporter
) -> tuple[float, float]:
    """mAP@0.5:0.95 on the validation split of PyTorch and of the file, on the same canvases at the same thresholds."""
    about = runtime.metadata
    nms = about.nms
    usual = Thresholds()
    same = Thresholds(nms.conf, nms.iou, nms.max_det, multi_label=False) if nms else usual
    found = []
    for model, thresholds in ((reference, same), (runtime, replace(same, iou=1.0) if nms else same)):
        loader = val_loader(
            data.judged.index,
            img=about.img,
            batch=AP_BATCH,
            stride=about.stride,
            workers=default_workers(-1, AP_BATCH),
            rect=about.dynamic,
        )
        evaluation = evaluate(
            model,
            loader,
            data.judged.index,
            Evaluator(data.names),
            thresholds=thresholds,
            device=device,
            reporter=reporter,
            batches=len(loader),
        )
        found.append(evaluation.metrics.map50_95)
    return found[0], found[1]


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
