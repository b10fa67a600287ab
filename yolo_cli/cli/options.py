"""Options that several commands share."""

from typing import Annotated, Any

from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_img
from yolo_cli.config import SPLITS, ValConfig
from yolo_cli.config.thresholds import DEFAULT, parse_conf

_IMG = " ".join(str(side) for side in sorted({*ValConfig().img}))

Weights = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Checkpoint (.pt, .pth), Darknet .weights, or a name such as yolox-nano. Default: best.pt of the "
        "newest training run.",
    ),
]
AnyWeights = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Checkpoint (.pt, .pth), Darknet .weights, exported model, or a name such as yolox-nano. Default: best.pt "
        "of the newest training run.",
    ),
]
DetectWeights = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Checkpoint (.pt, .pth), Darknet .weights, exported model, or a name such as yolox-nano. Default: best.pt "
        "of the newest training run, or yolox-nano if there is none.",
    ),
]
DarknetCfg = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Darknet .cfg that belongs to the .weights file. Default: the .cfg of the same name next to it.",
    ),
]
Data = Annotated[str, Option(metavar="DATA", help="Dataset: a data.yaml file or a built-in name such as coco128.")]
Task = Annotated[str, Option(metavar="|".join(SPLITS), help="Dataset split.")]
Img = Annotated[
    Numbers,
    Option(
        parser=parse_img,
        metavar="INT [INT]",
        help=f"Image size in pixels: one number, or height and width. Default: {_IMG}.",
        show_default=False,
    ),
]
Conf = Annotated[float, Option(help="Confidence threshold.")]
ClassConf = Annotated[
    Any,  # a number or a text, which the parser of options has no type for
    Option(
        parser=parse_conf,
        metavar="FLOAT|auto|NAME=FLOAT,…",
        help="Confidence threshold, for all classes or per class (person=0.4,car=0.3; the others have "
        f"{DEFAULT}). `auto`: those that `yolo val --save-thresholds` saved in the weights.",
    ),
]
Iou = Annotated[float, Option(help="IoU threshold for NMS.")]
MaxDet = Annotated[int, Option(help="Maximum detections per image.")]
Half = Annotated[bool, Option("--half", help="Run in half precision (FP16). Needs a CUDA GPU.")]
SaveConf = Annotated[bool, Option("--save-conf", help="Add the confidence to each row of the --save-txt files.")]
ExportDevice = Annotated[str, Option(help="Device: cpu, mps, or the index of a GPU.")]
Device = Annotated[
    str, Option(help="Device: cpu, mps, or the index of a GPU. Default: the first GPU, or the CPU if there is none.")
]
Workers = Annotated[
    int, Option(help="Processes that load images. 0: load in the main process. -1: one per CPU core, at most 8.")
]
SingleCls = Annotated[bool, Option("--single-cls", help="Treat all objects as one class, in labels and predictions.")]
Strict = Annotated[bool, Option("--strict", help="Fail if an image or label is bad, instead of skipping it.")]
Project = Annotated[str, Option(metavar="FOLDER", help="Folder in which the run folder is created.")]
Name = Annotated[str, Option(help="Name of the run folder. If it exists, a number is appended.")]
ExistOk = Annotated[bool, Option("--exist-ok", help="Write into the run folder if it exists already.")]
