"""Options that several commands share."""

from typing import Annotated

from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_img
from yolo_cli.config import SPLITS

Weights = Annotated[
    str, Option(metavar="FILE", help="Checkpoint (.pt) or Darknet .weights. Default: best.pt of the newest run.")
]
AnyWeights = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Checkpoint (.pt), Darknet .weights or exported model. Default: best.pt of the newest run.",
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
Task = Annotated[str, Option(metavar="|".join(SPLITS), help="Dataset split to use.")]
Img = Annotated[
    Numbers,
    Option(parser=parse_img, metavar="INT [INT]", help="Image size in pixels: one number, or height and width."),
]
Conf = Annotated[float, Option(help="Confidence threshold.")]
Iou = Annotated[float, Option(help="IoU threshold for NMS.")]
MaxDet = Annotated[int, Option(help="Maximum detections per image.")]
Half = Annotated[bool, Option("--half", help="Run in half precision (FP16). Needs a CUDA GPU.")]
SaveConf = Annotated[bool, Option("--save-conf", help="Add the confidence to each row of the txt files.")]
ExportDevice = Annotated[str, Option(help="Device: cpu, mps, or the index of a GPU.")]
Device = Annotated[
    str, Option(help="Device: cpu, mps, or the index of a GPU. Default: the first GPU, or the CPU if there is none.")
]
Workers = Annotated[int, Option(help="Processes that load images. -1: one per CPU core, at most 8.")]
SingleCls = Annotated[bool, Option("--single-cls", help="Treat all classes as one.")]
Strict = Annotated[
    bool, Option("--strict", help="Fail on any problem in the dataset, instead of skipping bad images and labels.")
]
Project = Annotated[str, Option(metavar="FOLDER", help="Folder in which the run folder is created.")]
Name = Annotated[str, Option(help="Name of the run folder. If it exists, a number is appended.")]
ExistOk = Annotated[bool, Option("--exist-ok", help="Use the run folder even if it exists; append no number.")]
