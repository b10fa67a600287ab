"""`yolo benchmark`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import DarknetCfg, Data, ExistOk, ExportDevice, Img, Name, Project, Weights
from yolo_cli.config import BenchmarkConfig

D = BenchmarkConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)


def benchmark(
    weights: Weights = D.weights,
    data: Data = D.data,
    include: Annotated[
        str,
        Option(
            metavar="FORMAT,…",
            help="Comma-separated export formats to compare with PyTorch. Default: all that run on this machine.",
        ),
    ] = D.include,
    cfg: DarknetCfg = D.cfg,
    img: Img = IMG,
    half: Annotated[
        bool, Option("--half", help="Compare exports in half precision (FP16). On a GPU, PyTorch runs in FP16 too.")
    ] = D.half,
    int8: Annotated[bool, Option("--int8", help="Compare INT8 exports, calibrated on --data.")] = D.int8,
    images: Annotated[int, Option(help="Number of images for the latency, at batch size 1.")] = D.images,
    device: ExportDevice = D.device,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Compare export formats by file size, mAP, latency and memory."""
    config = BenchmarkConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.benchmark import run

    run(config, Terminal())
