"""`yolo detect`: from its options to a run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from yolo_cli.config import TILE_AS_IMG, DetectConfig
from yolo_cli.device import check_half, default_workers, select_device
from yolo_cli.drawing import Style
from yolo_cli.errors import UserError
from yolo_cli.inference.pipeline import Pipeline
from yolo_cli.inference.predictor import Predictor, Settings
from yolo_cli.inference.prefetch import Budget, Feed
from yolo_cli.inference.sources.readers import start_readers
from yolo_cli.inference.sources.sources import Sources, find_sources, without_password
from yolo_cli.inference.writers.image_writer import SaveOptions
from yolo_cli.inference.writers.result_formats import Coco, Csv, JsonLines, Record
from yolo_cli.inference.writers.result_writer import Sink
from yolo_cli.inference.writers.summary import Summary
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_options
from yolo_cli.weights.load import load_model, resolve_image_size, warn_of_fixed_thresholds

GPU_BATCH = 16
MOST_WORKERS = 8
_READERS_END = 6.0  # seconds: a little more than a stalled stream's read may last


def run(config: DetectConfig, reporter: Reporter, write_line: Callable[[str], None] = print) -> Summary:
    """Detect as the options say; `write_line` takes the lines of `--json`. Raises UserError."""
    if config.view_img:
        _check_window()
    device = select_device(config.device)
    sources = find_sources(config.source)
    path = weights_or_newest(config.weights, config.project, reporter)
    predictor, config = _predictor(config, path, device, reporter)
    folder = _folder(config, path)
    summary = Summary(reporter.info, reporter.warn)
    before = torch.get_num_threads()
    try:
        _run(config, predictor, sources, folder, summary, reporter, write_line)
    finally:
        torch.set_num_threads(before)
        for line in summary.last_lines():
            reporter.info(line)
        if folder is not None:
            reporter.info(f"results in {folder}")
    return summary


def _check_window() -> None:
    try:
        cv2.namedWindow("yolo detect")
        cv2.destroyAllWindows()
    except cv2.error:
        fix = "install opencv-python in place of opencv-python-headless, and run where there is a screen"
        raise UserError("no window can be opened here", where="--view-img", fix=fix) from None


def load_predictor(path: Path, device: torch.device, settings: Settings, reporter: Reporter) -> Predictor:
    """A model of a weight file or an exported one, ready to detect. Raises UserError."""
    check_half(settings.half, device)
    opened = load_model(path, device, reporter, half=settings.half)
    warn_of_fixed_thresholds(opened, settings.conf, settings.iou, settings.max_det, reporter)
    beyond = [c for c in settings.classes if not 0 <= c < len(opened.names)]
    if beyond:
        raise UserError(f"the model's classes are 0 to {len(opened.names) - 1}", where=f"--classes {beyond[0]}")
    if opened.img and settings.augment:
        fix = "export it with --dynamic"
        raise UserError("looks at several sizes, and the file takes one", where="--augment", fix=fix)
    img = resolve_image_size(opened, settings.img, Settings().img, reporter)
    tile = max(img) if settings.tile == TILE_AS_IMG else settings.tile
    return Predictor(opened.runtime, device, replace(settings, img=img, tile=tile))


def _predictor(
    config: DetectConfig, path: Path, device: torch.device, reporter: Reporter
) -> tuple[Predictor, DetectConfig]:
    settings = Settings(
        config.img,
        config.conf,
        config.iou,
        config.max_det,
        tuple(config.classes),
        config.agnostic_nms,
        config.augment,
        config.tile,
        config.half,
    )
    predictor = load_predictor(path, device, settings, reporter)
    if config.visualize and predictor.model is None:
        raise UserError("an exported file keeps its layers to itself", where="--visualize", fix="give the checkpoint")
    return predictor, replace(config, img=predictor.settings.img, tile=predictor.settings.tile)


def _folder(config: DetectConfig, weights: Path) -> Path | None:
    """The run folder, where anything is to be written at all."""
    saves = (config.save_txt, config.save_crop, config.save_csv, config.save_json, config.visualize)
    if config.nosave and not any(saves):
        return None
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    source = without_password(config.source) if "://" in config.source else config.source
    write_options(folder / "opt.yaml", replace(config, weights=str(weights), source=source))
    return folder


def _records(config: DetectConfig, folder: Path | None, write_line: Callable[[str], None]) -> Sequence[Record]:
    records: list[Record] = []
    if config.json:
        records.append(JsonLines(write_line))
    if folder is not None and config.save_csv:
        records.append(Csv(folder))
    if folder is not None and config.save_json:
        records.append(Coco(folder))
    return records


def _run(
    config: DetectConfig,
    predictor: Predictor,
    sources: Sources,
    folder: Path | None,
    summary: Summary,
    reporter: Reporter,
    write_line: Callable[[str], None],
) -> None:
    cores = default_workers(-1, MOST_WORKERS)
    on_cpu = predictor.device.type == "cpu"
    # On the CPU several images side by side, each in few threads, go through faster than one in many; a live picture
    # or a single one is wanted soon, though.
    single = sources.live or (sources.count == 1 and next(iter(sources.items)).kind == "image")
    workers = cores if on_cpu and not single else 1
    batch = config.batch or (1 if on_cpu else GPU_BATCH)
    style = Style(config.line_thickness, not config.hide_labels, not config.hide_conf, side=config.tile)
    wanted = SaveOptions(not config.nosave, config.save_txt, config.save_conf, config.save_crop, style)
    budget = Budget()
    # One place for each live source, so that none waits for another with a frame that grows old.
    places = max(2 * batch, 2 * workers, 8, sources.count or 0 if sources.live else 0)
    feed = Feed(places, dropping=sources.live and not config.stream_buffer)
    sink = Sink(
        folder,
        wanted,
        _records(config, folder, write_line),
        summary,
        budget,
        workers=cores,
        view=config.view_img,
    )
    pipeline = Pipeline(
        predictor,
        feed,
        sink,
        budget,
        batch=batch,
        workers=workers,
        threads=max(1, torch.get_num_threads() // workers),
        eager=sources.live or not sources.patient,
        visualize=config.visualize,
    )
    try:
        start_readers(sources, feed, budget, predictor, stride=config.vid_stride, workers=cores, warn=reporter.warn)
        pipeline.run()
    finally:
        sink.close()
        feed.join(_READERS_END)
