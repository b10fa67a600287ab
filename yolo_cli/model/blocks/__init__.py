"""The BLOCKS table: the blocks that architecture files can use, by name.

To add a block, write a PlannedModule, enter it here and add a case to tests/model/test_blocks.py.
"""

from yolo_cli.model.aligned_head import AlignedDetect
from yolo_cli.model.blocks.conv import Conv, Focus, ReOrg
from yolo_cli.model.blocks.csp import C3, Bottleneck, BottleneckCSP
from yolo_cli.model.blocks.darknet import (
    DarknetConv,
    DarknetDropout,
    DarknetMaxPool,
    DarknetOutput,
    DarknetRoute,
    DarknetShortcut,
    DarknetYolo,
)
from yolo_cli.model.blocks.depthwise import DepthwiseC3, DepthwiseConv
from yolo_cli.model.blocks.pooling import MP, SP, SPP, SPPCSPC, SPPF, DownC, MaxPool2d
from yolo_cli.model.blocks.pyramid import PyramidLevel
from yolo_cli.model.blocks.repconv import RepConv, RepConvOREPA
from yolo_cli.model.blocks.resnet import ResNetStage, ResNetStem
from yolo_cli.model.blocks.routing import Concat, Shortcut, Upsample, ZeroPad2d
from yolo_cli.model.darknet_head import DarknetDetect
from yolo_cli.model.decoupled_head import DecoupledDetect
from yolo_cli.model.heads import Detect
from yolo_cli.model.implicit import IAuxDetect, IDetect
from yolo_cli.model.plan import PlannedModule

BLOCKS: dict[str, type[PlannedModule]] = {
    "AlignedDetect": AlignedDetect,
    "Bottleneck": Bottleneck,
    "BottleneckCSP": BottleneckCSP,
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
    "DecoupledDetect": DecoupledDetect,
    "DepthwiseC3": DepthwiseC3,
    "DepthwiseConv": DepthwiseConv,
    "Detect": Detect,
    "DownC": DownC,
    "Focus": Focus,
    "IAuxDetect": IAuxDetect,
    "IDetect": IDetect,
    "MP": MP,
    "MaxPool2d": MaxPool2d,
    "PyramidLevel": PyramidLevel,
    "ReOrg": ReOrg,
    "RepConv": RepConv,
    "RepConv_OREPA": RepConvOREPA,
    "ResNetStage": ResNetStage,
    "ResNetStem": ResNetStem,
    "SP": SP,
    "SPP": SPP,
    "SPPCSPC": SPPCSPC,
    "SPPF": SPPF,
    "Shortcut": Shortcut,
    "Upsample": Upsample,
    "ZeroPad2d": ZeroPad2d,
}
