"""`yolo export`."""

from typing import Annotated

import typer
from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Device, ExistOk, Img, Name, Project
from yolo_cli.config import ExportConfig

D = ExportConfig()  # defaults live in the config alone
IMG = Numbers(D.img)
DIFFERS = 4  # exit status where a file does not give PyTorch's detections


def export(
    weights: Annotated[
        str, Option(help="Weights (ours, a published .pt or Darknet .weights); left out: best.pt of the newest run.")
    ] = D.weights,
    include: Annotated[
        str,
        Option(
            metavar="FORMAT,…",
            help="torchscript, onnx, openvino, pt2, aotinductor, ncnn, executorch, tensorrt, coreml.",
        ),
    ] = D.include,
    cfg: Annotated[
        str, Option(help="Network of Darknet .weights: a .cfg; left out: the one of the same name beside them.")
    ] = D.cfg,
    img: Img = IMG,
    batch: Annotated[int, Option("--batch", "--batch-size", help="Images a batch of the file.")] = D.batch,
    dynamic: Annotated[bool, Option("--dynamic", help="Any batch, and any size of whole strides.")] = D.dynamic,
    half: Annotated[bool, Option("--half", help="Half precision.")] = D.half,
    int8: Annotated[bool, Option("--int8", help="8 bits, calibrated on --data (ONNX, OpenVINO).")] = D.int8,
    data: Annotated[
        str, Option(help="Data set to calibrate and prove on, and to print the average precision of.")
    ] = D.data,
    simplify: Annotated[bool, Option("--simplify", help="Simplify the ONNX graph with onnxslim.")] = D.simplify,
    opset: Annotated[int, Option(help="ONNX opset, from 17.")] = D.opset,
    nms: Annotated[bool, Option("--nms", help="Non-maximum suppression inside the file.")] = D.nms,
    conf: Annotated[float, Option("--conf", "--conf-thres", help="Least confidence of a detection.")] = D.conf,
    iou: Annotated[
        float, Option("--iou", "--iou-thres", help="Overlap from which a lesser box is suppressed.")
    ] = D.iou,
    max_det: Annotated[int, Option(help="Most detections an image.")] = D.max_det,
    device: Device = D.device,
    verify: Annotated[bool, Option("--verify/--no-verify", help="Prove the file against PyTorch.")] = D.verify,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Write a model for other runtimes, and prove that it gives the same detections."""
    config = ExportConfig(**locals())  # one parameter a field: a test holds them together
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.export import run

    done = run(config, Terminal())
    if any(one.proof is not None and not one.proof.passed for one in done):
        raise typer.Exit(DIFFERS)
