"""`yolo export`."""

from typing import Annotated

import typer
from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import ClassConf, DarknetCfg, ExistOk, ExportDevice, Img, Name, Project, Weights
from yolo_cli.config import OPSETS, ExportConfig

D = ExportConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)
DIFFERS = 4  # exit status if an exported model gives other detections than PyTorch


def export(
    weights: Weights = D.weights,
    include: Annotated[
        str,
        Option(
            metavar="FORMAT,…",
            help="Comma-separated formats: torchscript, onnx, openvino, pt2, aotinductor, ncnn, executorch, tensorrt, "
            "coreml.",
        ),
    ] = D.include,
    cfg: DarknetCfg = D.cfg,
    img: Img = IMG,
    batch: Annotated[int, Option(help="Batch size of the exported model.")] = D.batch,
    dynamic: Annotated[
        bool, Option("--dynamic", help="Accept any batch size, and any image size that is a multiple of the stride.")
    ] = D.dynamic,
    half: Annotated[bool, Option("--half", help="Export in half precision (FP16).")] = D.half,
    int8: Annotated[
        bool, Option("--int8", help="Quantize to INT8, calibrated on --data (onnx and openvino only).")
    ] = D.int8,
    data: Annotated[
        str,
        Option(
            metavar="DATA",
            help="Dataset: its train split calibrates INT8, its val split is used to verify and to compare mAP. "
            "Default: verify on generated images.",
        ),
    ] = D.data,
    simplify: Annotated[bool, Option("--simplify", help="Simplify the ONNX model with onnxslim.")] = D.simplify,
    opset: Annotated[int, Option(help=f"ONNX opset version, {OPSETS[0]} to {OPSETS[1]}.")] = D.opset,
    nms: Annotated[bool, Option("--nms", help="Add NMS to the exported model.")] = D.nms,
    conf: ClassConf = D.conf,
    iou: Annotated[float, Option(help="IoU threshold for NMS, for --nms and --verify.")] = D.iou,
    max_det: Annotated[int, Option(help="Maximum detections per image for --nms and --verify.")] = D.max_det,
    device: ExportDevice = D.device,
    verify: Annotated[
        bool, Option("--verify/--no-verify", help="Compare the detections of the exported model with PyTorch's.")
    ] = D.verify,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Export a model to other formats and verify its detections."""
    config = ExportConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.export import run

    done = run(config, Terminal())
    if any(one.parity is not None and not one.parity.passed for one in done):
        raise typer.Exit(DIFFERS)
