"""ResNet's stem and stages (He et al. 2016; stride in the 3×3 convolution), with the names of torchvision's weights."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import fuse_conv_bn
from yolo_cli.model.plan import MAX_REPEATS, Plan, PlannedModule, Scaling, integer, out_channels, single

EXPANSION = 4  # output channels / inner channels of a bottleneck


class ResNetStem(PlannedModule):
    """7×7 convolution and 3×3 max pool, each with stride 2. (b, c1, h, w) → (b, c2, h/4, w/4)."""

    detector_norms = False  # ImageNet weights were trained with torch's defaults

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c1, c2, 7, 2, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(c2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        fan_out_init(self)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h4 w4"]:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; eval mode only."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            self.conv1, self.bn1 = fuse_conv_bn(self.conv1, self.bn1), nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels."""
        integer(repeats, "number", 1, 1)
        c2, _ = out_channels(args, 1, scaling)
        return Plan((single(channels), c2), c2, 1, Fraction(1, 4))


class ResidualBottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with a residual connection, projected if the shape changes."""

    def __init__(self, c1: int, c2: int, s: int = 1) -> None:
        super().__init__()
        inner = c2 // EXPANSION
        self.conv1 = nn.Conv2d(c1, inner, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, s, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, c2, 1, bias=False)
        self.bn3: nn.Module = nn.BatchNorm2d(c2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if s != 1 or c1 != c2:
            self.downsample = nn.Sequential(nn.Conv2d(c1, c2, 1, s, bias=False), nn.BatchNorm2d(c2))

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    def fuse(self) -> None:
        """Fold the batch norms into the convolutions; eval mode only."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            assert isinstance(self.bn2, nn.BatchNorm2d)
            assert isinstance(self.bn3, nn.BatchNorm2d)
            self.conv1, self.bn1 = fuse_conv_bn(self.conv1, self.bn1), nn.Identity()
            self.conv2, self.bn2 = fuse_conv_bn(self.conv2, self.bn2), nn.Identity()
            self.conv3, self.bn3 = fuse_conv_bn(self.conv3, self.bn3), nn.Identity()
            if self.downsample is not None:
                convolution, norm = self.downsample
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                self.downsample = nn.Sequential(fuse_conv_bn(convolution, norm))


class ResNetStage(PlannedModule):
    """`n` residual bottlenecks, the first with stride `s`. (b, c1, h, w) → (b, c2, h/s, w/s).

    Its blocks are named "0", "1", …, as in published weights.
    """

    detector_norms = False  # ImageNet weights were trained with torch's defaults

    def __init__(self, c1: int, c2: int, n: int = 1, s: int = 1) -> None:
        super().__init__()
        for index in range(n):
            block = ResidualBottleneck(c2, c2) if index else ResidualBottleneck(c1, c2, s)
            self.add_module(str(index), block)
        fan_out_init(self)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        for block in self.children():
            x = block(x)
        return x

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, stride (1). Repeats are its bottlenecks."""
        c1, (c2, rest) = single(channels), out_channels(args, 2, scaling)
        stride = integer(rest[0] if rest else 1, "stride", 1, 8)
        if c2 % EXPANSION:
            raise UserError(f"output channels must be a multiple of {EXPANSION}, not {c2}")
        n = integer(scaling.repeats(repeats), "repeats", 1, MAX_REPEATS)
        return Plan((c1, c2, n, *rest), c2, 1, Fraction(1, stride), inner=n)


def fan_out_init(module: nn.Module, negative_slope: float = 0.0) -> None:
    """Initialize convolutions so that the variance of gradients is preserved (He et al. 2015, equation 14)."""
    for part in module.modules():
        # on the meta device there is nothing to initialize, and torch would import its compiler
        if isinstance(part, nn.Conv2d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, a=negative_slope, mode="fan_out", nonlinearity="leaky_relu")
