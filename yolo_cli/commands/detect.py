"""`yolo detect`: detect objects in images, videos and streams."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2

from yolo_cli.config import DetectConfig
from yolo_cli.device import select_device
from yolo_cli.drawing import Style
from yolo_cli.errors import UserError
from yolo_cli.inference.pipeline import PipelineOptions, detect
from yolo_cli.inference.predictor import Settings, load_predictor
from yolo_cli.inference.sources.sources import find_sources, without_password
from yolo_cli.inference.writers.image_writer import SaveOptions
from yolo_cli.inference.writers.result_formats import CocoWriter, CsvWriter, JsonLinesWriter, ResultFormat
from yolo_cli.inference.writers.result_writer import Outputs
from yolo_cli.inference.writers.summary import Summary
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import create_run_dir, weights_or_newest, write_options

DEFAULT_WEIGHTS = "yolox-nano"  # freely licensed, small, trained on the 80 classes of COCO


def run(config: DetectConfig, reporter: Reporter, write_line: Callable[[str], None] = print) -> Summary:
    """Run `yolo detect`. `write_line` receives the lines of `--json`. Raises UserError."""
    # Set up
    if config.view_img:
        _check_window()
    device = select_device(config.device)
    sources = find_sources(config.source)
    weights = weights_or_newest(config.weights, config.project, reporter, default=DEFAULT_WEIGHTS)
    predictor = load_predictor(weights, device, _settings(config), reporter)
    if config.visualize and predictor.model is None:
        raise UserError("an exported file does not show its layers", where="--visualize", fix="give the checkpoint")
    config = replace(config, weights=str(weights), img=predictor.settings.img, tile=predictor.settings.tile)
    outputs = _outputs(config, _create_folder(config), write_line)
    options = PipelineOptions(config.batch, config.vid_stride, config.stream_buffer, config.visualize)
    summary = Summary(reporter.info, reporter.warn)

    # Work
    try:
        detect(sources, predictor, outputs, summary, options, reporter.warn)

    # Report, also after Ctrl-C
    finally:
        for line in summary.last_lines():
            reporter.info(line)
        if outputs.folder is not None:
            reporter.info(f"results in {outputs.folder}")
    return summary


def _check_window() -> None:
    try:
        cv2.namedWindow("yolo detect")
        cv2.destroyAllWindows()
    except cv2.error:
        fix = "install opencv-python in place of opencv-python-headless, and run where there is a screen"
        raise UserError("no window can be opened here", where="--view-img", fix=fix) from None


def _settings(config: DetectConfig) -> Settings:
    return Settings(
        img=config.img,
        conf=config.conf,
        iou=config.iou,
        max_det=config.max_det,
        classes=tuple(config.classes),
        agnostic=config.agnostic_nms,
        augment=config.augment,
        tile=config.tile,
        half=config.half,
    )


def _create_folder(config: DetectConfig) -> Path | None:
    """The run folder with its opt.yaml, or None where no file is to be written."""
    saves = (config.save_txt, config.save_crop, config.save_csv, config.save_json, config.visualize)
    if config.nosave and not any(saves):
        return None
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    source = without_password(config.source) if "://" in config.source else config.source
    write_options(folder / "opt.yaml", replace(config, source=source))
    return folder


def _outputs(config: DetectConfig, folder: Path | None, write_line: Callable[[str], None]) -> Outputs:
    formats: list[ResultFormat] = []
    if config.json:
        formats.append(JsonLinesWriter(write_line))
    if folder is not None and config.save_csv:
        formats.append(CsvWriter(folder))
    if folder is not None and config.save_json:
        formats.append(CocoWriter(folder))
    style = Style(config.line_thickness, not config.hide_labels, not config.hide_conf, side=config.tile)
    save = SaveOptions(not config.nosave, config.save_txt, config.save_conf, config.save_crop, style)
    return Outputs(folder, save, formats, config.view_img)
