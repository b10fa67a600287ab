"""`yolo detect`."""

import os
import signal
import sys
from typing import Annotated, Never

from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_numbers
from yolo_cli.cli.heavy import heavy_imports
from yolo_cli.cli.options import (
    ClassConf,
    DetectWeights,
    Device,
    ExistOk,
    Half,
    Img,
    Iou,
    MaxDet,
    Name,
    Project,
    SaveConf,
)
from yolo_cli.config import DetectConfig

D = DetectConfig()  # defaults are defined in the config only
IMG, CLASSES = Numbers(D.img), Numbers(D.classes)
_ENDING = (signal.SIGINT, signal.SIGTERM)
SKIPPED, INTERRUPTED, PIPE_CLOSED = 3, 130, 141  # exit statuses; SKIPPED if some inputs could not be read


def detect(
    source: Annotated[
        str,
        Option(
            metavar="SOURCE",
            help="Required. Image, video, folder, quoted glob, .txt file with one path or URL per line, .streams file "
            "with one stream per line (processed in parallel), camera index, URL (http, rtsp), `screen`, or `-` for "
            "paths from standard input.",
        ),
    ] = D.source,
    weights: DetectWeights = D.weights,
    img: Img = IMG,
    conf: ClassConf = D.conf,
    iou: Iou = D.iou,
    max_det: MaxDet = D.max_det,
    classes: Annotated[
        Numbers,
        Option(parser=parse_numbers, metavar="INT …", help="Detect only the classes with these indices. Default: all."),
    ] = CLASSES,
    agnostic_nms: Annotated[
        bool, Option("--agnostic-nms", help="Class-agnostic NMS: boxes of different classes suppress each other.")
    ] = D.agnostic_nms,
    augment: Annotated[
        bool, Option("--augment", help="Test-time augmentation: three scales, one of them flipped.")
    ] = D.augment,
    tile: Annotated[
        int,
        Option(
            metavar="[INT]",
            help="Also detect in overlapping tiles of this size in pixels, for small objects in large images, and "
            "merge the results. Without a value: the size of --img. 0: no tiles.",
        ),
    ] = D.tile,
    half: Half = D.half,
    device: Device = D.device,
    batch: Annotated[int, Option(help="Images per batch. 0: 16 on a GPU, 1 on the CPU.")] = D.batch,
    vid_stride: Annotated[int, Option(help="Process every N-th frame of videos and streams.")] = D.vid_stride,
    stream_buffer: Annotated[
        bool,
        Option(
            "--stream-buffer",
            help="Process every frame of a live stream. Default: only the newest frame, dropping older ones.",
        ),
    ] = D.stream_buffer,
    save_txt: Annotated[bool, Option("--save-txt", help="Save detections as YOLO txt files in labels/.")] = D.save_txt,
    save_conf: SaveConf = D.save_conf,
    save_crop: Annotated[bool, Option("--save-crop", help="Save cropped detections in crops/CLASS/.")] = D.save_crop,
    save_csv: Annotated[bool, Option("--save-csv", help="Save detections as predictions.csv.")] = D.save_csv,
    save_json: Annotated[
        bool, Option("--save-json", help="Save detections as predictions.json in COCO format.")
    ] = D.save_json,
    nosave: Annotated[bool, Option("--nosave", help="Do not save annotated images and videos.")] = D.nosave,
    json: Annotated[
        bool, Option("--json", help="Print detections to standard output, one JSON object per line and frame.")
    ] = D.json,
    view_img: Annotated[bool, Option("--view-img", help="Show results in a window. Press q to quit.")] = D.view_img,
    line_thickness: Annotated[
        int, Option(help="Thickness of box lines in pixels. 0: chosen by image size.")
    ] = D.line_thickness,
    hide_labels: Annotated[bool, Option("--hide-labels", help="Do not draw class names.")] = D.hide_labels,
    hide_conf: Annotated[bool, Option("--hide-conf", help="Do not draw confidences.")] = D.hide_conf,
    visualize: Annotated[
        bool,
        Option(
            "--visualize", help="Save the feature maps of each layer, for each image and the first frame of each video."
        ),
    ] = D.visualize,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> int:
    """Detect objects in images, videos and streams."""
    config = DetectConfig(**locals())  # one parameter per field, which a test checks
    # Files that cannot be read are reported by `yolo` in one line each; OpenCV's decoders would add their own warnings.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    for number in _ENDING:  # SIGTERM completes the files as Ctrl-C does
        signal.signal(number, _end)
    from yolo_cli.cli.terminal import Terminal

    with heavy_imports():
        from yolo_cli.commands.detect import run

    # With --json, standard output is reserved for the objects.
    reporter = Terminal(sys.stderr if config.json else None)
    try:
        return SKIPPED if run(config, reporter, _print_line).skipped else 0
    except KeyboardInterrupt:  # `main` prints the message
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the objects ended (`yolo detect --json … | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return PIPE_CLOSED


def _print_line(text: str) -> None:
    print(text, flush=True)


def _end(signal_number: int, frame: object) -> Never:
    for number in _ENDING:  # a second Ctrl-C must not cut short what the first one has begun: to complete all files
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
