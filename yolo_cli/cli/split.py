"""`yolo split`."""

from typing import Annotated

from typer import Argument, Option

from yolo_cli.cli.options import Workers
from yolo_cli.config import SplitConfig

D = SplitConfig("")  # defaults are defined in the config only


def split(
    images: Annotated[
        str, Argument(metavar="IMAGES", help="Folder or txt list of images, or a dataset (data.yaml) to split anew.")
    ],
    output: Annotated[str, Option(metavar="FOLDER", help="New folder for the lists and data.yaml.")] = D.output,
    val: Annotated[float, Option(help="Share of the images for validation. Not used with --folds.")] = D.val,
    test: Annotated[float, Option(help="Share of the images for the test split.")] = D.test,
    folds: Annotated[
        int, Option(help="Folds for cross-validation: a folder fold1, fold2, … each. Each image is in val once.")
    ] = D.folds,
    group: Annotated[
        str,
        Option(
            metavar="REGEX",
            help="Images whose paths have the same match stay together, such as those of one video. If it has "
            "(groups), their text counts.",
        ),
    ] = D.group,
    stratify: Annotated[bool, Option("--stratify", help="Spread the images of each class evenly.")] = D.stratify,
    ignore_duplicates: Annotated[
        bool,
        Option("--ignore-duplicates", help="Do not look for near-duplicates, which otherwise stay together."),
    ] = D.ignore_duplicates,
    seed: Annotated[int, Option(help="Random seed.")] = D.seed,
    workers: Workers = D.workers,
) -> None:
    """Split images into train, val and test, or into folds. Writes lists; no image is moved."""
    config = SplitConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.split import run

    run(config, Terminal())
