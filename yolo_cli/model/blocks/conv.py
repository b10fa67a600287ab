"""Convolution with batch norm and activation, and its fusing."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.device import to_float64
from yolo_cli.model.blocks.activations import Named
from yolo_cli.model.blocks.activations import activation as make_activation
from yolo_cli.model.plan import (
    Plan,
    PlannedModule,
    Scaling,
    arguments,
    check_kernel,
    integer,
    none_given,
    single,
)

BN_EPS = 1e-3  # batch norm settings of the published models
BN_MOMENTUM = 0.03


class Conv(PlannedModule):
    """Convolution without bias, batch norm, activation. (b, c1, h, w) → (b, c2, h/s, w/s)."""

    takes_activation = True

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: str | bool | None = None,
        *,
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = make_activation(activation if act is None or act is True else act)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; eval mode only."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn(self.conv, self.bn)
            self.bn = nn.Identity()

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, kernel (1), stride (1), padding (same), groups (1), activation."""
        c1, (out, *rest) = single(channels), arguments(args, 1, 6)
        c2 = scaling.channels(out)
        kernel, stride, padding, groups = (rest + [1, 1, None, 1][len(rest) :])[:4]
        integer(kernel, "kernel", 1, 31)
        integer(stride, "stride", 1, 8)
        if padding is not None:
            integer(padding, "padding", 0, 31)
        integer(groups, "groups", 1, c2)
        check_kernel(c1, c2, kernel, groups)
        if len(rest) > 4:
            make_activation(rest[4])  # raises UserError for an unknown name
        shown = [Named(value) if isinstance(value, str) else value for value in rest]
        return Plan((c1, c2, *shown), c2, scaling.repeats(repeats), Fraction(1, stride))

    @classmethod
    def of(cls, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, *, activation: str) -> "Conv":
        """A Conv with "same" padding inside another block, with that block's activation."""
        return cls(c1, c2, k, s, None, g, activation=activation)


class Focus(PlannedModule):
    """Space-to-depth with 2×2 patches, followed by a Conv. (b, c1, h, w) → (b, c2, h/2, w/2)."""

    takes_activation = True

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: str | bool | None = None,
        *,
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act, activation=activation)
        self.folded = False  # whether the convolution's kernel includes the rearrangement

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.conv(x if self.folded else space_to_depth(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold space-to-depth into the convolution: k×k over 2×2 patches is 2k×2k over pixels, with twice the stride.

        Runtimes without strided slices need this, and the others run it faster.
        """
        cells = self.conv.conv
        if self.folded or cells.groups != 1:
            return
        kernel, stride, padding = cells.kernel_size[0], cells.stride[0], int(cells.padding[0])
        c1, c2 = cells.in_channels // 4, cells.out_channels
        device, dtype = cells.weight.device, cells.weight.dtype
        pixels = nn.Conv2d(
            c1, c2, 2 * kernel, 2 * stride, 2 * padding, bias=cells.bias is not None, device=device, dtype=dtype
        ).requires_grad_(False)
        for i, (column, row) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            pixels.weight[..., row::2, column::2] = cells.weight[:, i * c1 : (i + 1) * c1]
        if pixels.bias is not None and cells.bias is not None:
            pixels.bias.copy_(cells.bias)
        self.conv.conv = pixels.train(cells.training)
        self.folded = True

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: the same as for Conv."""
        integer(repeats, "number", 1, 1)
        inner = Conv.plan([4 * single(channels)], args, 1, scaling)
        return Plan((single(channels), *inner.args[1:]), inner.channels, 1, inner.scale / 2)


class ReOrg(PlannedModule):
    """Space-to-depth with 2×2 patches. (b, c, h, w) → (b, 4c, h/2, w/2)."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c4 h2 w2"]:
        return space_to_depth(x)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: none."""
        none_given(args, repeats)
        return Plan((), 4 * single(channels), 1, Fraction(1, 2))


def space_to_depth(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c4 h2 w2"]:
    """Move 2×2 patches to channels, in the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1)."""
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


@torch.no_grad()
def fuse_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with bias that equals `bn(conv(x))` in eval mode, within rounding."""
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=True,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    ).requires_grad_(False)
    assert fused.bias is not None
    scale, shift = norm_scale_and_shift(bn)
    fused.weight.copy_((to_float64(conv.weight) * scale.reshape(-1, 1, 1, 1)).to(conv.weight.dtype))
    if conv.bias is not None:
        shift = shift + to_float64(conv.bias) * scale
    fused.bias.copy_(shift.to(conv.weight.dtype))
    return fused.train(conv.training)


def norm_scale_and_shift(bn: nn.Module) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """A batch norm in eval mode as y = scale · x + shift, in float64: small variances would cost float32 digits."""
    assert isinstance(bn, nn.BatchNorm2d)
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("batch norm without running statistics cannot be fused")
    scale = to_float64(bn.weight) / (to_float64(bn.running_var) + bn.eps).sqrt()
    return scale, to_float64(bn.bias) - to_float64(bn.running_mean) * scale
