"""`yolo benchmark`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Data, Device, ExistOk, Img, Name, Project
from yolo_cli.config import BenchmarkConfig

D = BenchmarkConfig()  # defaults live in the config alone
IMG = Numbers(D.img)


def benchmark(
    weights: Annotated[
        str, Option(help="Weights (ours, a published .pt or Darknet .weights); left out: best.pt of the newest run.")
    ] = D.weights,
    data: Data = D.data,
    include: Annotated[
        str, Option(metavar="FORMAT,…", help="Formats; left out: every one that runs here.")
    ] = D.include,
    cfg: Annotated[
        str, Option(help="Network of Darknet .weights: a .cfg; left out: the one of the same name beside them.")
    ] = D.cfg,
    img: Img = IMG,
    half: Annotated[bool, Option("--half", help="Files in half precision.")] = D.half,
    int8: Annotated[bool, Option("--int8", help="Files in 8 bits, calibrated on --data.")] = D.int8,
    images: Annotated[int, Option(help="Images that are timed, one by one.")] = D.images,
    device: Device = D.device,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Compare a model's formats: size, average precision, speed, memory."""
    config = BenchmarkConfig(**locals())  # one parameter a field: a test holds them together
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.benchmark import run

    run(config, Terminal())
