"""`yolo convert`."""

from typing import Annotated

from typer import Argument, Option

from yolo_cli.config import ConvertConfig


def convert(
    source: Annotated[
        str, Argument(metavar="IN", help="Weights: ours, a published .pt, or Darknet .weights; or a .cfg.")
    ],
    target: Annotated[
        str, Argument(metavar="OUT", help="FILE.pt, FILE.weights, FILE.cfg or FILE.yaml; never replaced.")
    ],
    cfg: Annotated[
        str, Option(help="Network of Darknet .weights: a .cfg; left out: the one of the same name beside them.")
    ] = "",
) -> None:
    """Turn weights of one kind into another: published .pt or Darknet .weights into ours, ours into Darknet's."""
    config = ConvertConfig(source, target, cfg)
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.convert import run

    run(config, Terminal())
