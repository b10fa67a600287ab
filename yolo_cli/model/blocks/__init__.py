"""The BLOCKS table: every name that an architecture file may use.

A new block is one class with a `plan`, one entry here and one test.
"""

from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.blocks.csp import C3, Bottleneck
from yolo_cli.model.blocks.darknet import (
    DarknetConv,
    DarknetDropout,
    DarknetMaxPool,
    DarknetOutput,
    DarknetRoute,
    DarknetShortcut,
    DarknetYolo,
)
from yolo_cli.model.blocks.pooling import SPPF
from yolo_cli.model.blocks.routing import Concat, Upsample
from yolo_cli.model.darknet_head import DarknetDetect
from yolo_cli.model.heads import Detect
from yolo_cli.model.plan import PlannedModule

BLOCKS: dict[str, type[PlannedModule]] = {
    "Bottleneck": Bottleneck,
    "C3": C3,
    "Concat": Concat,
    "Conv": Conv,
    "DarknetConv": DarknetConv,
    "DarknetDetect": DarknetDetect,
    "DarknetDropout": DarknetDropout,
    "DarknetMaxPool": DarknetMaxPool,
    "DarknetOutput": DarknetOutput,
    "DarknetRoute": DarknetRoute,
    "DarknetShortcut": DarknetShortcut,
    "DarknetYolo": DarknetYolo,
    "Detect": Detect,
    "SPPF": SPPF,
    "Upsample": Upsample,
}
