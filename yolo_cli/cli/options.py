"""Options that several commands have: one meaning, one help text."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_img

Data = Annotated[str, Option(help="Data set: a data.yaml or a shipped name.")]
Batch = Annotated[int, Option("--batch", "--batch-size", help="Images a batch.")]
Img = Annotated[
    Numbers,
    Option(
        "--img",
        "--imgsz",
        "--img-size",
        parser=parse_img,
        metavar="INT [INT]",
        help="Image size: side, or height and width.",
    ),
]
Device = Annotated[str, Option(help="cpu, a GPU's number, or mps; left out: the first GPU, else the CPU.")]
Workers = Annotated[int, Option(help="Processes that load images; -1: one a core, at most 8.")]
SingleCls = Annotated[bool, Option("--single-cls", help="Treat all classes as one.")]
Strict = Annotated[bool, Option("--strict", help="Any problem in the data set is an error.")]
Project = Annotated[str, Option(help="Folder of run folders.")]
Name = Annotated[str, Option(help="Name of the run folder; a number is added where it is taken.")]
ExistOk = Annotated[bool, Option("--exist-ok", help="Write into an existing run folder.")]
