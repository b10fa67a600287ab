"""Darknet's sections as blocks, one to one (Redmon's Darknet and its fork by the authors of YOLOv4).

Unlike the other blocks, they do not apply width scaling to channels.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.conv import BN_MOMENTUM, fuse_conv_bn
from yolo_cli.model.plan import MAX_CHANNELS, Plan, PlannedModule, Scaling, arguments, check_kernel, integer, single

DARKNET_EPS = 1e-6  # of batch norm
ACTIVATIONS = ("leaky", "linear", "logistic", "mish", "relu", "swish")
_PRIOR = 0.01  # initial objectness (Lin et al. 2017, "Focal Loss", section 4.1)


def darknet_activation(name: str) -> nn.Module:
    """Make an activation by its Darknet name. Raises UserError for a name not in ACTIVATIONS."""
    table: dict[str, Callable[[], nn.Module]] = {
        "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
        "linear": nn.Identity,
        "logistic": nn.Sigmoid,
        "mish": lambda: nn.Mish(inplace=True),
        "relu": lambda: nn.ReLU(inplace=True),
        "swish": lambda: nn.SiLU(inplace=True),
    }
    if name not in table:
        raise UserError(f"unknown activation {name!r}", fix=f"use one of {', '.join(ACTIVATIONS)}")
    return table[name]()


class DarknetConv(PlannedModule):
    """[convolutional]: convolution with batch norm or bias, and activation."""

    detector_norms = False  # Darknet has its own eps

    def __init__(
        self, c1: int, c2: int, size: int, stride: int, padding: int, groups: int, norm: bool, activation: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, size, stride, padding, groups=groups, bias=not norm)
        self.bn: nn.Module = nn.BatchNorm2d(c2, eps=DARKNET_EPS, momentum=BN_MOMENTUM) if norm else nn.Identity()
        self.act = darknet_activation(activation)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; eval mode only."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn(self.conv, self.bn)
            self.bn = nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: filters, size, stride, padding, groups, whether with batch norm, activation."""
        filters, *rest = arguments(args, 7, 7)
        c2 = integer(filters, "filters", 1, MAX_CHANNELS)
        stride = _checked_convolution(single(channels), c2, rest)
        return Plan((single(channels), c2, *rest), c2, _once(repeats), Fraction(1, stride))


class DarknetOutput(DarknetConv):
    """The [convolutional] before a [yolo]. Its filters are anchors × (5 + classes)."""

    def __init__(
        self,
        c1: int,
        nc: int,
        count: int,
        size: int,
        stride: int,
        padding: int,
        groups: int,
        norm: bool,
        activation: str,
    ) -> None:
        super().__init__(c1, count * (5 + nc), size, stride, padding, groups, norm, activation)
        self.nc, self.count = nc, count
        self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Add a prior of few objects and of equally likely classes to the biases; it keeps the first steps stable."""
        bias = self.bn.bias if isinstance(self.bn, nn.BatchNorm2d) else self.conv.bias
        assert bias is not None
        per_anchor = bias.view(self.count, -1)
        per_anchor[:, 4] += math.log(_PRIOR / (1 - _PRIOR))
        per_anchor[:, 5:] += math.log(0.6 / (self.nc - 0.99999))

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: nc, number of anchors of the scale, then those of DarknetConv except the filters."""
        nc, count, *rest = arguments(args, 8, 8)
        c2 = integer(count, "anchors", 1, 100) * (5 + integer(nc, "nc", 1, MAX_CHANNELS))
        stride = _checked_convolution(single(channels), integer(c2, "filters", 1, MAX_CHANNELS), rest)
        return Plan((single(channels), nc, count, *rest), c2, _once(repeats), Fraction(1, stride))


class DarknetMaxPool(PlannedModule):
    """[maxpool]: of the total padding p, ⌊p/2⌋ is at the top and left, the rest at the bottom and right.

    With size 2 and stride 1 this keeps the map's size. The padding is −∞.
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        before, after = padding // 2, padding - padding // 2
        self.pad = (before, after, before, after)
        # Padding at the bottom and right only is the same as windows cut off at the edge (ceil_mode).
        self.cut = stride >= size and before == 0
        self.pool = nn.MaxPool2d(size, stride, before if before == after else 0, ceil_mode=self.cut and after > 0)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        if self.pad[0] != self.pad[1] and not self.cut:
            x = F.pad(x, self.pad, value=-math.inf)
        return self.pool(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: size, stride, total padding of both sides."""
        size, stride, padding = arguments(args, 3, 3)
        integer(size, "size", 1, 31)
        integer(stride, "stride", 1, 16)
        integer(padding, "padding", 0, size - 1)
        _keeps_grid(size, stride, padding)
        return Plan((size, stride, padding), single(channels), _once(repeats), Fraction(1, stride))


class DarknetRoute(PlannedModule):
    """[route]: concatenation of layers; with groups, of group `group_id` of each layer's channels."""

    joins = True

    def __init__(self, groups: int = 1, group_id: int = 0) -> None:
        super().__init__()
        self.groups, self.group_id = groups, group_id

    def forward(self, x: list[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b c h w"]:
        if self.groups > 1:
            x = [part.chunk(self.groups, 1)[self.group_id] for part in x]
        return torch.cat(x, 1) if len(x) > 1 else x[0]

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: groups, group_id."""
        groups, group_id = arguments(args, 2, 2)
        integer(groups, "groups", 1, MAX_CHANNELS)
        integer(group_id, "group_id", 0, groups - 1)
        if bad := [c for c in channels if c % groups]:
            raise UserError(f"{groups} groups do not divide {bad[0]} channels")
        return Plan((groups, group_id), integer(sum(channels) // groups, "channels", 1, MAX_CHANNELS), _once(repeats))


class DarknetShortcut(PlannedModule):
    """[shortcut]: adds the other sources to the first. If their channels differ in number, adds the common ones."""

    joins = True

    def __init__(self, activation: str = "linear") -> None:
        super().__init__()
        self.act = darknet_activation(activation)

    def forward(self, x: list[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b c h w"]:
        total, *others = x
        for other in others:
            common = min(total.shape[1], other.shape[1])
            added = total[:, :common] + other[:, :common]
            total = torch.cat((added, total[:, common:]), 1) if common < total.shape[1] else added
        return self.act(total)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: activation."""
        (activation,) = arguments(args, 1, 1)
        _known_activation(activation)
        if len(channels) < 2:
            raise UserError("a shortcut needs two or more source layers")
        return Plan((activation,), channels[0], _once(repeats))


class DarknetDropout(PlannedModule):
    """[dropout]."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.dropout(x, self.probability, self.training)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: probability."""
        (probability,) = arguments(args, 1, 1)
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability < 1:
            raise UserError(f"probability must be at least 0 and less than 1, not {probability!r}")
        return Plan((probability,), single(channels), _once(repeats))


class DarknetYolo(PlannedModule):
    """[yolo]: the identity. It keeps the layer numbers of the .cfg; DarknetDetect at the end decodes its input."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: none."""
        arguments(args, 0, 0)
        return Plan((), single(channels), _once(repeats))


def _checked_convolution(c1: int, c2: int, rest: Sequence[Any]) -> int:
    """Check size, stride, padding, groups, norm and activation, and return the stride."""
    size, stride, padding, groups, norm, activation = rest
    integer(size, "size", 1, 31)
    integer(stride, "stride", 1, 16)
    integer(padding, "padding", 0, 31)
    integer(groups, "groups", 1, MAX_CHANNELS)
    check_kernel(c1, c2, size, groups)
    if not isinstance(norm, bool):
        raise UserError(f"batch norm must be true or false, not {norm!r}")
    _known_activation(activation)
    _keeps_grid(size, stride, 2 * padding)
    return int(stride)


def _keeps_grid(size: int, stride: int, padding: int) -> None:
    """Raise UserError unless the output has 1/stride of the input's rows and columns; `padding` is of both sides.

    ⌊(h + padding − size)/stride⌋ + 1 must be h/stride for each h that is a multiple of the stride. Otherwise the cells
    of the output would not divide the image evenly, and decoded boxes would be displaced.
    """
    if (padding - size) // stride != -1:
        raise UserError(
            f"size {size}, total padding {padding} and stride {stride} do not give 1/{stride} of the input size",
            fix="use a total padding of about size − stride; other sizes of feature maps are not supported",
        )


def _known_activation(name: Any) -> None:
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}", fix=f"use one of {', '.join(ACTIVATIONS)}")


def _once(repeats: int) -> int:
    if repeats != 1:
        raise UserError(f"number must be 1 for this block, not {repeats!r}")
    return repeats
