"""`yolo anchors`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Data, ExistOk, Img, Name, Project, Strict, Workers
from yolo_cli.config import AnchorsConfig

D = AnchorsConfig()  # defaults live in the config alone
IMG = Numbers(D.img)


def anchors(
    data: Data = D.data,
    task: Annotated[str, Option(metavar="train|val|test", help="Split whose boxes are fitted.")] = D.task,
    n: Annotated[int, Option(help="How many anchors; 0: as many as the model has, 9 where none is named.")] = D.n,
    img: Img = IMG,
    thr: Annotated[float, Option(help="Largest ratio of sides at which an anchor matches a box.")] = D.thr,
    gen: Annotated[int, Option(help="Attempts to leave a local optimum.")] = D.gen,
    seed: Annotated[int, Option(help="Seed of the search.")] = D.seed,
    weights: Annotated[str, Option(help="Compare with the anchors of these weights.")] = D.weights,
    cfg: Annotated[str, Option(help="Compare with the anchors of this architecture (left out: s).")] = D.cfg,
    save: Annotated[str, Option(metavar="FILE", help="Write the architecture with the fitted anchors.")] = D.save,
    workers: Workers = D.workers,
    strict: Strict = D.strict,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Fit anchors to the boxes of a data set."""
    config = AnchorsConfig(**locals())  # one parameter a field: a test holds them together
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.anchors import run

    run(config, Terminal())
