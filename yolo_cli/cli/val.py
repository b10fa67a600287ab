"""`yolo val`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import (
    AnyWeights,
    Conf,
    DarknetCfg,
    Data,
    Device,
    ExistOk,
    Half,
    Img,
    Iou,
    MaxDet,
    Name,
    Project,
    SaveConf,
    SingleCls,
    Strict,
    Task,
    Workers,
)
from yolo_cli.config import ValConfig

D = ValConfig()  # defaults are defined in the config only
IMG = Numbers(D.img)


def val(
    weights: AnyWeights = D.weights,
    cfg: DarknetCfg = D.cfg,
    data: Data = D.data,
    task: Task = D.task,
    batch: Annotated[int, Option(help="Images per batch.")] = D.batch,
    img: Img = IMG,
    tile: Annotated[
        int,
        Option(
            metavar="[INT]",
            help="Evaluate in tiles of this size in pixels, as `yolo detect --tile` does. Without a "
            "value: the size of --img. 0: no tiles.",
        ),
    ] = D.tile,
    conf: Conf = D.conf,
    iou: Iou = D.iou,
    max_det: MaxDet = D.max_det,
    half: Half = D.half,
    device: Device = D.device,
    workers: Workers = D.workers,
    single_cls: SingleCls = D.single_cls,
    verbose: Annotated[bool, Option("--verbose", help="Print the metrics of each class.")] = D.verbose,
    beta: Annotated[
        float,
        Option(help="Choose confidence thresholds by the best F-beta: above 1, recall counts more than precision."),
    ] = D.beta,
    min_precision: Annotated[
        float | None,
        Option(help="Choose confidence thresholds by the highest recall at this precision, instead of by F-beta."),
    ] = D.min_precision,
    save_thresholds: Annotated[
        bool,
        Option("--save-thresholds", help="Save the chosen thresholds in the checkpoint, for --conf auto."),
    ] = D.save_thresholds,
    pycocotools: Annotated[
        bool, Option("--pycocotools", help="Compute COCO metrics with pycocotools too, to compare.")
    ] = D.pycocotools,
    save_txt: Annotated[bool, Option("--save-txt", help="Save detections as YOLO txt files in labels/.")] = D.save_txt,
    save_conf: SaveConf = D.save_conf,
    save_json: Annotated[
        bool, Option("--save-json", help="Save detections as predictions.json in COCO format.")
    ] = D.save_json,
    plots: Annotated[
        bool, Option("--plots/--noplots", help="Write report.html, and plots of curves, confusion and sample images.")
    ] = D.plots,
    strict: Strict = D.strict,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Evaluate a model on a dataset split with COCO metrics."""
    config = ValConfig(**locals())  # one parameter per field, which a test checks
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.val import run

    run(config, Terminal())
