"""ResNet-50 and Darknet-53 as image classifiers, with the state dict names of published weights."""

from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.blocks.csp import Bottleneck
from yolo_cli.model.blocks.resnet import ResNetStage, ResNetStem, fan_out_init

LEAKY_SLOPE = 0.1


class ResNet(ResNetStem):
    """ResNet of bottleneck blocks (He et al. 2016), with torchvision's names. Normalized images → logits."""

    def __init__(self, stages: tuple[int, int, int, int], num_classes: int = 1000) -> None:
        super().__init__(3, 64)
        self.layer1 = ResNetStage(64, 256, stages[0])
        self.layer2 = ResNetStage(256, 512, stages[1], 2)
        self.layer3 = ResNetStage(512, 1024, stages[2], 2)
        self.layer4 = ResNetStage(1024, 2048, stages[3], 2)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        x = super().forward(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class Darknet53(nn.Module):
    """Darknet-53 (Redmon & Farhadi 2018, table 1). Images in 0 … 1 → logits.

    Layers 0 to 10 have the indices of models/yolov3.yaml and models/yolov3-fpn.yaml, whose backbone this is.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        act = f"LeakyReLU({LEAKY_SLOPE})"
        layers: list[nn.Module] = [Conv(3, 32, 3, activation=act)]
        for channels, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
            layers.append(Conv(channels // 2, channels, 3, 2, activation=act))
            stage = [Bottleneck(channels, channels, activation=act) for _ in range(blocks)]
            layers.append(stage[0] if blocks == 1 else nn.Sequential(*stage))
        self.model = nn.ModuleList(layers)
        self.fc = nn.Linear(1024, num_classes)
        fan_out_init(self, LEAKY_SLOPE)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        for layer in self.model:
            x = layer(x)
        return self.fc(x.mean((2, 3)))


def resnet50(num_classes: int = 1000) -> ResNet:
    """ResNet-50, version 1.5, with Kaiming fan-out initialization."""
    return ResNet((3, 4, 6, 3), num_classes)


def darknet53(num_classes: int = 1000) -> Darknet53:
    """Darknet-53 with Kaiming fan-out initialization."""
    return Darknet53(num_classes)
