"""Write report.html of a run."""

from pathlib import Path

from yolo_cli.errors import StoppedError
from yolo_cli.evaluation.result import Metrics
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation
from yolo_cli.io.atomic import write_atomically
from yolo_cli.progress import Reporter, Silent
from yolo_cli.report.findings import analyze
from yolo_cli.report.page import render
from yolo_cli.report.run_files import read_run

FILE = "report.html"
AUTOMATIC_RESAMPLES = 100  # after an evaluation: standard errors are then right to about 7%


def write_report(
    folder: Path,
    saved: SavedEvaluation,
    *,
    output: Path | None = None,
    base: SavedEvaluation | None = None,
    base_name: str = "",
    metrics: Metrics | None = None,
    resamples: int,
    seed: int = 0,
    reporter: Reporter,
) -> Path:
    """Write the report of the run in `folder`, by default into it; returns its path.

    Raises UserError where it cannot be written, and where the base was evaluated on other images.
    """
    findings = analyze(
        saved, base, base_name=base_name, metrics=metrics, resamples=resamples, seed=seed, reporter=reporter
    )
    path = output or folder / FILE
    write_atomically(path, render(findings, read_run(folder), base_name).encode(), what=path.name)
    return path


def try_report(folder: Path, saved: SavedEvaluation, metrics: Metrics, reporter: Reporter) -> None:
    """Write the report at the end of an evaluation. A failure is a warning: the results are what counts."""
    try:
        write_report(folder, saved, metrics=metrics, resamples=AUTOMATIC_RESAMPLES, reporter=Silent())
    except StoppedError:
        raise
    except Exception as error:  # `yolo report` raises the same error, with its traceback
        reporter.warn(f"{folder / FILE}: not written ({error or type(error).__name__}); try yolo report {folder}")
