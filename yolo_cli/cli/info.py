"""`yolo info`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Img
from yolo_cli.config import InfoConfig

D = InfoConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)


def info(
    cfg: Annotated[
        str, Option(help="Architecture: a YAML file, a Darknet .cfg or a built-in name. `--cfg list` prints the names.")
    ] = D.cfg,
    weights: Annotated[
        str, Option(metavar="FILE", help="Checkpoint (.pt, .pth), Darknet .weights, or a name such as yolox-nano.")
    ] = D.weights,
    img: Img = IMG,
) -> None:
    """Print the layers, parameters, GFLOPs and anchors of a model."""
    config = InfoConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.info import run

    run(config, Terminal())
