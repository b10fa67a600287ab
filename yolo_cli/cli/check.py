"""`yolo check`."""

import sys
from typing import Annotated

import typer
from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_img
from yolo_cli.cli.options import Data, Device, ExistOk, Name, Project, Workers
from yolo_cli.config import CheckConfig

D = CheckConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)


def check(
    data: Data = D.data,
    weights: Annotated[
        str,
        Option(
            metavar="RUN,…",
            help="Find label errors with the predictions of this training run or weight file. With several "
            "(comma-separated, or a quoted glob), each image is evaluated by a model that was not trained on it.",
        ),
    ] = D.weights,
    img: Annotated[
        Numbers,
        Option(
            parser=parse_img,
            metavar="INT [INT]",
            help=f"Training image size in pixels: one number, or height and width. Default: {D.img[0]}.",
            show_default=False,
        ),
    ] = IMG,
    images: Annotated[
        bool, Option("--images/--no-images", help="Decode all images. --no-images: read only labels and image headers.")
    ] = D.images,
    advice: Annotated[
        bool, Option("--advice/--no-advice", help="Suggest training options, and measure memory and time.")
    ] = D.advice,
    fix: Annotated[
        str,
        Option(
            metavar="FOLDER",
            help="Write a corrected copy of the labels to this new folder, with links to the images and a list of the "
            "changes.",
        ),
    ] = D.fix,
    json: Annotated[
        bool, Option("--json", help="Print one JSON object to standard output instead of a table.")
    ] = D.json,
    html: Annotated[
        bool, Option("--html/--no-html", help="Write check.html, with thumbnails, and check.json into a run folder.")
    ] = D.html,
    strict: Annotated[bool, Option("--strict", help="Exit with status 1 if there are warnings.")] = D.strict,
    batch: Annotated[int, Option(help="Images per batch, with --weights.")] = D.batch,
    device: Device = D.device,
    workers: Workers = D.workers,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Find what is wrong with a dataset before training.

    Exit status: 2 with errors, 1 with warnings if --strict is given, else 0.
    """
    config = CheckConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.check import run

    # With --json, standard output has the JSON object only.
    status = run(config, Terminal(sys.stderr if config.json else None)).status(strict=config.strict)
    if status:
        raise typer.Exit(status)
