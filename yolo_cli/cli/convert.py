"""`yolo convert`."""

from typing import Annotated

from typer import Argument

from yolo_cli.cli.options import DarknetCfg
from yolo_cli.config import ConvertConfig


def convert(
    source: Annotated[
        str,
        Argument(
            metavar="IN", help="Checkpoint (.pt, .pth), Darknet .weights, Darknet .cfg, or a name such as yolox-nano."
        ),
    ],
    target: Annotated[
        str,
        Argument(
            metavar="OUT",
            help="New file. Its suffix chooses the format: .pt, .weights (writes the .cfg too), .cfg or .yaml "
            "(architecture only).",
        ),
    ],
    cfg: DarknetCfg = "",
) -> None:
    """Convert between checkpoints, Darknet files and architecture YAML."""
    config = ConvertConfig(source, target, cfg)
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.convert import run

    run(config, Terminal())
