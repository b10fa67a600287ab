"""`yolo detect`."""

import os
import signal
import sys
from typing import Annotated, Never

from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_numbers
from yolo_cli.cli.heavy import heavy_imports
from yolo_cli.cli.options import Device, ExistOk, Img, Name, Project
from yolo_cli.config import DetectConfig

D = DetectConfig()  # defaults live in the config alone
IMG, CLASSES = Numbers(D.img), Numbers(D.classes)
_ENDING = (signal.SIGINT, signal.SIGTERM)
SKIPPED, INTERRUPTED, PIPE_CLOSED = 3, 130, 141  # exit statuses; the first where something could not be read


def detect(
    source: Annotated[
        str,
        Option(
            help="Image, video, folder, 'glob', list.txt, list.streams, camera number, URL, screen, or - for stdin."
        ),
    ] = D.source,
    weights: Annotated[
        str, Option(help="Weights (ours or a published .pt); left out: best.pt of the newest run.")
    ] = D.weights,
    img: Img = IMG,
    conf: Annotated[float, Option("--conf", "--conf-thres", help="Least confidence of a detection.")] = D.conf,
    iou: Annotated[
        float, Option("--iou", "--iou-thres", help="Overlap from which a lesser box is suppressed.")
    ] = D.iou,
    max_det: Annotated[int, Option(help="Most detections an image.")] = D.max_det,
    classes: Annotated[
        Numbers, Option(parser=parse_numbers, metavar="INT …", help="Numbers of the classes to find; left out: all.")
    ] = CLASSES,
    agnostic_nms: Annotated[
        bool, Option("--agnostic-nms", help="Boxes of different classes suppress each other, too.")
    ] = D.agnostic_nms,
    augment: Annotated[bool, Option("--augment", help="Look at three scales, one mirrored, and merge.")] = D.augment,
    tile: Annotated[
        int, Option(metavar="[INT]", help="Look at large images in tiles of so many pixels (left out: --img), too.")
    ] = D.tile,
    half: Annotated[bool, Option("--half", help="Half precision (GPU).")] = D.half,
    device: Device = D.device,
    batch: Annotated[
        int, Option("--batch", "--batch-size", help="Images a batch; 0: 16 on a GPU, 1 on the CPU.")
    ] = D.batch,
    vid_stride: Annotated[int, Option(help="Judge every N-th frame of videos and streams.")] = D.vid_stride,
    stream_buffer: Annotated[
        bool, Option("--stream-buffer", help="Judge every frame of a stream, however late; else the newest.")
    ] = D.stream_buffer,
    save_txt: Annotated[bool, Option("--save-txt", help="Write labels/NAME.txt.")] = D.save_txt,
    save_conf: Annotated[bool, Option("--save-conf", help="Add confidences to the txt labels.")] = D.save_conf,
    save_crop: Annotated[bool, Option("--save-crop", help="Write what was found as crops/CLASS/.")] = D.save_crop,
    save_csv: Annotated[bool, Option("--save-csv", help="Write predictions.csv.")] = D.save_csv,
    save_json: Annotated[bool, Option("--save-json", help="Write COCO's predictions.json.")] = D.save_json,
    nosave: Annotated[bool, Option("--nosave", help="Draw no pictures and videos.")] = D.nosave,
    json: Annotated[bool, Option("--json", help="Print a JSON object a frame on the standard output.")] = D.json,
    view_img: Annotated[bool, Option("--view-img", "--show", help="Show pictures in a window; q ends.")] = D.view_img,
    line_thickness: Annotated[int, Option(help="Pixels of the boxes' lines; 0: as suits.")] = D.line_thickness,
    hide_labels: Annotated[bool, Option("--hide-labels", help="Draw boxes without names.")] = D.hide_labels,
    hide_conf: Annotated[bool, Option("--hide-conf", help="Draw names without confidences.")] = D.hide_conf,
    visualize: Annotated[
        bool, Option("--visualize", help="Write feature maps of each source's first frame.")
    ] = D.visualize,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> int:
    """Detect objects in images, videos and streams."""
    config = DetectConfig(**locals())  # one parameter a field: a test holds them together
    # OpenCV's decoders write warnings of their own about what we report in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    for number in _ENDING:  # being told to end leaves as much behind as Ctrl-C
        signal.signal(number, _end)
    from yolo_cli.cli.terminal import Terminal

    with heavy_imports():
        from yolo_cli.commands.detect import run

    # With --json the standard output belongs to the objects.
    reporter = Terminal(sys.stderr if config.json else None)
    try:
        return SKIPPED if run(config, reporter, _print_line).skipped else 0
    except KeyboardInterrupt:  # what is to be said of it, `main` says
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the objects went away (`yolo detect --json … | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return PIPE_CLOSED


def _print_line(text: str) -> None:
    print(text, flush=True)


def _end(signal_number: int, frame: object) -> Never:
    for number in _ENDING:  # a second Ctrl-C must not cut short what the first one has begun: to complete all files
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
