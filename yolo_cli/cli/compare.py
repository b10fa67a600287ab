"""`yolo compare`."""

import sys
from typing import Annotated

import typer
from typer import Argument, Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Device, Img, Iou, MaxDet, Task, Workers
from yolo_cli.config import CompareConfig

D = CompareConfig(("base", "other"))  # defaults are defined in the config only
IMG = Numbers(D.img)
NOT_SHOWN = 1  # exit status: --min-gain is not reached


def compare(
    recipes: Annotated[
        list[str],
        Argument(
            metavar="BASE OTHER...",
            help="Two or more of: weights, a training run folder, predictions.json (with --data). A quoted glob, such "
            "as 'runs/exp*', is several runs (seeds) of one recipe.",
        ),
    ],
    data: Annotated[
        str,
        Option(
            metavar="DATA",
            help="Dataset: a data.yaml file or a built-in name. Default: the one that the first run was trained on.",
        ),
    ] = D.data,
    task: Task = D.task,
    batch: Annotated[int, Option(help="Images per batch.")] = D.batch,
    img: Img = IMG,
    iou: Iou = D.iou,
    max_det: MaxDet = D.max_det,
    device: Device = D.device,
    workers: Workers = D.workers,
    resamples: Annotated[int, Option(help="Number of bootstrap resamples.")] = D.resamples,
    seed: Annotated[int, Option(help="Random seed of the resamples.")] = D.seed,
    min_gain: Annotated[
        float | None,
        Option(
            help="Exit with status 1 unless every other model is shown to be better than BASE by at least this many "
            "points of mAP@0.5:0.95 (the lower end of the 95% interval)."
        ),
    ] = D.min_gain,
    verbose: Annotated[bool, Option("--verbose", help="Print the difference of each class.")] = D.verbose,
    json: Annotated[
        bool, Option("--json", help="Print one JSON object to standard output instead of tables.")
    ] = D.json,
) -> None:
    """Compare models on one dataset: differences of AP with 95% confidence intervals."""
    config = CompareConfig(**{**locals(), "recipes": tuple(recipes)})  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.compare import run

    # With --json, standard output has the JSON object only.
    if not run(config, Terminal(sys.stderr if config.json else None)):
        raise typer.Exit(NOT_SHOWN)
