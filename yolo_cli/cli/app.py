"""The `yolo` command: its subcommands, and the messages and exit statuses of errors."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from yolo_cli.cli import anchors, benchmark, check, compare, convert, detect, export, info, report, split, train, val
from yolo_cli.cli.arguments import normalize
from yolo_cli.cli.given import RecordingCommand, remember_arguments
from yolo_cli.distributed.elastic import wait_for_failure_report
from yolo_cli.errors import UserError
from yolo_cli.version import __version__

# Errors of a full or write-protected device. Any file of a run can be the one that fails.
_DEVICE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

app = typer.Typer(
    name="yolo",
    help="Train, evaluate and export YOLO object detectors.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command("check")(check.check)
app.command("train", cls=RecordingCommand)(train.train)
app.command("val")(val.val)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("info")(info.info)
app.command("convert")(convert.convert)
app.command("anchors")(anchors.anchors)
app.command("split")(split.split)
app.command("detect")(detect.detect)
app.command("export")(export.export)
app.command("benchmark")(benchmark.benchmark)


def _version(requested: bool) -> bool:
    if requested:
        print(f"yolo_cli {__version__}")
        raise typer.Exit
    return requested


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate and export YOLO object detectors."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    args = normalize(sys.argv[1:] if arguments is None else arguments)
    remember_arguments(args)
    _accept_any_filename()
    _limit_spinning()
    try:
        status = app(args=args, prog_name="yolo", standalone_mode=False)
    except UserError as error:
        sys.exit(_fail(str(error)))
    except typer.TyperException as error:
        line = " ".join(error.format_message().split()) or f"{type(error).__name__}"
        if _reports_shared_errors():
            sys.exit(_fail(line))
        wait_for_failure_report()
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(_interrupted())
    except BrokenPipeError:  # the reader of the output ended (`yolo … | head`)
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno not in _DEVICE_ERRORS:
            raise
        where = error.filename or "a file of the run"
        sys.exit(_fail(f"{where}: cannot be written ({error.strerror}); free some space, or give another --project"))
    if status == 130:  # typer turns Ctrl-C into this status
        _interrupted()
    sys.exit(status if isinstance(status, int) else 0)


def _limit_spinning() -> None:
    """Let waiting OpenMP threads sleep after a short spin, unless the user has set how they wait.

    libgomp reads this variable when torch is imported. Its default spin is longer. Where other programs use the cores,
    too, spinning is then most of what a training step costs (docs/benchmarks.md).
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _accept_any_filename() -> None:
    """File names can be any bytes, so reading and printing them must not fail on invalid text."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _interrupted() -> int:
    if _reports_shared_errors():
        print("interrupted", file=sys.stderr)
    return 130


def _reports_shared_errors() -> bool:
    """Whether this process reports errors that all processes of a distributed job have in common."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _fail(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2
