"""`yolo report`."""

from typing import Annotated

from typer import Argument, Option

from yolo_cli.cli.options import Device, Workers
from yolo_cli.config import ReportConfig

D = ReportConfig("run")  # defaults are defined in the config only


def report(
    run: Annotated[str, Argument(metavar="RUN", help="Run folder of `yolo val` or `yolo train`.")],
    base: Annotated[
        str,
        Option(metavar="RUN", help="Run folder to compare with, evaluated on the same images. Default: no comparison."),
    ] = D.base,
    output: Annotated[
        str, Option(metavar="FILE", help="HTML file to write. Default: report.html in the run folder.")
    ] = D.output,
    resamples: Annotated[int, Option(help="Number of bootstrap resamples.")] = D.resamples,
    seed: Annotated[int, Option(help="Random seed of the resamples.")] = D.seed,
    batch: Annotated[int, Option(help="Images per batch, if the run has to be evaluated again.")] = D.batch,
    device: Device = D.device,
    workers: Workers = D.workers,
) -> None:
    """Write an HTML report of a run: errors, worst images, suspected label errors."""
    config = ReportConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.report import run as write

    write(config, Terminal())
