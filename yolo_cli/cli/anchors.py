"""`yolo anchors`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Data, ExistOk, Img, Name, Project, Strict, Task, Workers
from yolo_cli.config import AnchorsConfig

D = AnchorsConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)


def anchors(
    data: Data = D.data,
    task: Task = D.task,
    n: Annotated[int, Option(help="Number of anchors. 0: as many as the compared model has.")] = D.n,
    img: Img = IMG,
    thr: Annotated[
        float, Option(help="Threshold of the width and height ratios of box and anchor, below which they match.")
    ] = D.thr,
    gen: Annotated[int, Option(help="Generations of the evolution that refines the k-means result.")] = D.gen,
    seed: Annotated[int, Option(help="Random seed.")] = D.seed,
    weights: Annotated[
        str, Option(metavar="FILE", help="Compare with the anchors of this checkpoint or Darknet .weights.")
    ] = D.weights,
    cfg: Annotated[
        str, Option(help="Compare with the anchors of this architecture (YAML, .cfg or name). Default: s.")
    ] = D.cfg,
    save: Annotated[
        str, Option(metavar="FILE", help="Write the architecture with the new anchors to this YAML file.")
    ] = D.save,
    workers: Workers = D.workers,
    strict: Strict = D.strict,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Fit anchors to the boxes of a dataset."""
    config = AnchorsConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.anchors import run

    run(config, Terminal())
