"""`yolo info`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Img
from yolo_cli.config import InfoConfig

D = InfoConfig()  # defaults live in the config alone
IMG = Numbers(D.img)


def info(
    cfg: Annotated[
        str, Option(help="Architecture: a YAML file, a Darknet .cfg, a shipped name; `list` names what is shipped.")
    ] = D.cfg,
    weights: Annotated[str, Option(help="Weights: ours, a published .pt, or Darknet .weights.")] = D.weights,
    img: Img = IMG,
) -> None:
    """Describe an architecture or a weight file: layers, parameters, GFLOPs, strides, anchors, classes."""
    config = InfoConfig(**locals())  # one parameter a field: a test holds them together
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.info import run

    run(config, Terminal())
