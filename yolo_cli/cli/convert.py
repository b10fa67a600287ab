"""`yolo convert`."""

from typing import Annotated

from typer import Argument, Option

from yolo_cli.cli.options import DarknetCfg
from yolo_cli.config import DATASET_FORMATS, ConvertConfig


def convert(
    source: Annotated[
        str,
        Argument(
            metavar="IN",
            help="Checkpoint (.pt, .pth), Darknet .weights, Darknet .cfg, or a name such as yolox-nano. With --to: a "
            "dataset (data.yaml).",
        ),
    ],
    target: Annotated[
        str,
        Argument(
            metavar="OUT",
            help="New file. Its suffix chooses the format: .pt, .weights (writes the .cfg too), .cfg or .yaml "
            "(architecture only). With --to: a new folder.",
        ),
    ],
    cfg: DarknetCfg = "",
    to: Annotated[
        str,
        Option(metavar="|".join(DATASET_FORMATS), help="Convert a dataset to YOLO txt, COCO JSON or Pascal VOC XML."),
    ] = "",
    copy: Annotated[bool, Option("--copy", help="With --to: copy the images. Without it, links are made.")] = False,
) -> None:
    """Convert between checkpoints, Darknet files and architecture YAML, or between dataset formats."""
    config = ConvertConfig(source, target, cfg, to, copy)
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.convert import run

    run(config, Terminal())
