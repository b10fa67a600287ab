"""The license of a weight file, as far as the file tells. It is information for the user, not legal advice."""

from collections.abc import Sequence

from yolo_cli.model.architecture import Architecture

YOLOV5 = "AGPL-3.0 (published YOLOv5)"
YOLOV7 = "GPL-3.0 (published YOLOv7)"
YOLOX = "Apache-2.0 (YOLOX)"
OWN = "yours"

_YOLOV7_BLOCKS = frozenset(("SPPCSPC", "IDetect", "IAuxDetect", "IBin", "MP", "ReOrg", "RepConv", "RepConv_OREPA"))
_COCO_CLASSES = 80
_TRAINED_FROM = "; it was trained from weights with the license "


def license_of(origin: str, architecture: Architecture, names: Sequence[str], base: str) -> str:
    """The license in words.

    `origin` is that of `Weights`. `base` is what a checkpoint of ours says of the weights that its training began with,
    "" for a training from scratch. A .pt file for COCO's 80 classes is taken for the published one; with other classes
    somebody trained it, and the license of the program that did may apply.
    """
    if origin == "yolo_cli":
        return f"{OWN}{_TRAINED_FROM}{base}" if base else OWN
    if origin == "darknet":
        return "not in the file (Darknet itself is in the public domain)"
    blocks = {layer.block for layer in architecture.layers}
    published = YOLOX if "DecoupledDetect" in blocks else YOLOV7 if blocks & _YOLOV7_BLOCKS else YOLOV5
    if architecture.nc == _COCO_CLASSES:
        return published
    program, _, name = published.partition(" ")
    return f"not in the file (trained with {name.strip('()').removeprefix('published ')}, whose license is {program})"


def inherited(license_: str) -> str:
    """What a training that begins with weights of that license remembers; "" for weights of the user's own."""
    if license_ == OWN:
        return ""
    return license_.removeprefix(f"{OWN}{_TRAINED_FROM}")
