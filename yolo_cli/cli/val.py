"""`yolo val`."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers
from yolo_cli.cli.options import Batch, Data, Device, ExistOk, Img, Name, Project, SingleCls, Strict, Workers
from yolo_cli.config import ValConfig

D = ValConfig()  # defaults live in the config alone
IMG = Numbers(D.img)


def val(
    weights: Annotated[
        str, Option(help="Weights (ours, a published .pt or Darknet .weights); left out: best.pt of the newest run.")
    ] = D.weights,
    cfg: Annotated[
        str, Option(help="Network of Darknet .weights: a .cfg; left out: the one of the same name beside them.")
    ] = D.cfg,
    data: Data = D.data,
    batch: Batch = D.batch,
    img: Img = IMG,
    conf: Annotated[float, Option("--conf", "--conf-thres", help="Least confidence of a detection.")] = D.conf,
    iou: Annotated[
        float, Option("--iou", "--iou-thres", help="Overlap from which a lesser box is suppressed.")
    ] = D.iou,
    max_det: Annotated[int, Option(help="Most detections an image.")] = D.max_det,
    task: Annotated[str, Option(metavar="train|val|test", help="Split to judge on.")] = D.task,
    device: Device = D.device,
    workers: Workers = D.workers,
    single_cls: SingleCls = D.single_cls,
    verbose: Annotated[bool, Option("--verbose", help="List every class.")] = D.verbose,
    save_txt: Annotated[bool, Option("--save-txt", help="Write detections as txt labels.")] = D.save_txt,
    save_conf: Annotated[bool, Option("--save-conf", help="Add confidences to the txt labels.")] = D.save_conf,
    save_json: Annotated[bool, Option("--save-json", help="Write detections as COCO predictions.json.")] = D.save_json,
    referee: Annotated[bool, Option("--referee", help="Have pycocotools judge the same detections.")] = D.referee,
    half: Annotated[bool, Option("--half", help="Half precision (GPU).")] = D.half,
    plots: Annotated[bool, Option("--plots/--noplots", help="Draw curves and sample pictures.")] = D.plots,
    strict: Strict = D.strict,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Judge weights on a split of a data set, with COCO's metrics."""
    config = ValConfig(**locals())  # one parameter a field: a test holds them together
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.val import run

    run(config, Terminal())
