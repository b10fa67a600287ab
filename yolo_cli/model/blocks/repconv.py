"""Convolutions with several branches that fuse into one (Ding et al. 2021, RepVGG; Hu et al. 2022, OREPA)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.device import to_float64
from yolo_cli.errors import UserError
from yolo_cli.model.blocks.activations import activation as make_activation
from yolo_cli.model.blocks.conv import Conv, norm_scale_and_shift
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, arguments

DEPTHWISE = 8  # channel expansion of OREPA's depthwise-separable term


class RepConv(PlannedModule):
    """Sum of a 3×3, a 1×1 and, if the shape stays, an identity branch, each with batch norm; then the activation.

    `fuse` replaces them by one 3×3 convolution with bias, named as in published deployed weights.
    """

    takes_activation = True
    rbr_dense: nn.Module | None
    rbr_1x1: nn.Module | None

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: str | bool | None = None,
        *,
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        self.shape = (c1, c2, s, g)
        self.act = make_activation(activation if act is None or act is True else act)
        self.rbr_reparam: nn.Conv2d | None = None
        self.rbr_identity = nn.BatchNorm2d(c1) if c1 == c2 and s == 1 else None
        self.add_branches(c1, c2, s, g)

    def add_branches(self, c1: int, c2: int, s: int, g: int) -> None:
        """Set `rbr_dense` and `rbr_1x1`."""
        self.rbr_dense = nn.Sequential(nn.Conv2d(c1, c2, 3, s, 1, groups=g, bias=False), nn.BatchNorm2d(c2))
        self.rbr_1x1 = nn.Sequential(nn.Conv2d(c1, c2, 1, s, groups=g, bias=False), nn.BatchNorm2d(c2))

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        if self.rbr_reparam is not None:
            return self.act(self.rbr_reparam(x))
        assert self.rbr_dense is not None
        assert self.rbr_1x1 is not None
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        return self.act(y)

    @torch.no_grad()
    def fuse(self) -> None:
        """Replace all branches by one convolution; valid in eval mode only."""
        if self.rbr_reparam is None:
            self.rbr_reparam = fuse_branches(self.shape, *self.kernels(), self.rbr_identity)
            self.rbr_dense = self.rbr_1x1 = self.rbr_identity = None

    def kernels(self) -> tuple[tuple[Tensor, nn.Module], tuple[Tensor, nn.Module]]:
        """Kernel and batch norm of the 3×3 and of the 1×1 branch."""
        assert isinstance(self.rbr_dense, nn.Sequential)
        assert isinstance(self.rbr_1x1, nn.Sequential)
        (dense, dense_bn), (point, point_bn) = self.rbr_dense, self.rbr_1x1
        assert isinstance(dense, nn.Conv2d)
        assert isinstance(point, nn.Conv2d)
        return (dense.weight, dense_bn), (point.weight, point_bn)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: the same as for Conv, with kernel 3 and padding 1."""
        plan = Conv.plan(channels, args, repeats, scaling)
        _check_three_by_three(plan.args[2:3], plan.args[4:5])
        return plan


class RepConvOREPA(RepConv):
    """RepConv whose 3×3 kernel is generated in each step as a sum of structured kernels (Hu et al. 2022)."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, p: int | None = None, *, activation: str = "SiLU"
    ) -> None:
        super().__init__(c1, c2, k, s, p, activation=activation)

    def add_branches(self, c1: int, c2: int, s: int, g: int) -> None:
        """Set `rbr_dense` and `rbr_1x1`."""
        self.rbr_dense = GeneratedConv(c1, c2, s, rows=5 if self.rbr_identity is None else 6)
        self.rbr_1x1 = PointConv(c1, c2, s)

    def kernels(self) -> tuple[tuple[Tensor, nn.Module], tuple[Tensor, nn.Module]]:
        """Kernel and batch norm of the 3×3 branch, whose kernel is generated, and of the 1×1 branch."""
        dense, point = self.rbr_dense, self.rbr_1x1
        assert isinstance(dense, GeneratedConv)
        assert isinstance(point, PointConv)
        return (dense.kernel(), dense.bn), (point.conv.weight, point.bn)

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, kernel (3), stride (1), padding (1)."""
        arguments(args, 1, 4)
        return super().plan(channels, args, repeats, scaling)


class PointConv(nn.Module):
    """1×1 convolution with batch norm."""

    def __init__(self, c1: int, c2: int, s: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1, s, bias=False)
        self.bn = nn.BatchNorm2d(c2)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.bn(self.conv(x))


class GeneratedConv(nn.Module):
    """3×3 convolution with batch norm; its kernel is a weighted sum of five terms (Hu et al. 2022, section 3.2).

    Parameters have the names of published weights.
    """

    def __init__(self, c1: int, c2: int, s: int, rows: int) -> None:
        super().__init__()
        self.stride = s
        self.weight_rbr_origin = _kernel_parameter(c2, c1, 3, 3)
        self.weight_rbr_avg_conv = _kernel_parameter(c2, c1, 1, 1)
        self.weight_rbr_pfir_conv = _kernel_parameter(c2, c1, 1, 1)
        self.weight_rbr_1x1_kxk_idconv1 = nn.Parameter(torch.zeros(c1, c1, 1, 1))
        self.weight_rbr_1x1_kxk_conv2 = _kernel_parameter(c2, c1, 3, 3)
        self.weight_rbr_gconv_dw = _kernel_parameter(DEPTHWISE * c1, 1, 3, 3)
        self.weight_rbr_gconv_pw = _kernel_parameter(c2, DEPTHWISE * c1, 1, 1)
        weights = torch.tensor([0.25, 0.25, 0.0, 0.5, 0.5, 0.5])[:rows]
        self.vector = nn.Parameter(weights.reshape(-1, 1).repeat(1, c2))
        self.weight_rbr_avg_avg = nn.Buffer(torch.full((3, 3), 1 / 9))
        self.id_tensor = nn.Buffer(torch.eye(c1).reshape(c1, c1, 1, 1))
        self.weight_rbr_prior = nn.Buffer(frequency_prior(c2))
        self.bn = nn.BatchNorm2d(c2)

    def kernel(self) -> Float[Tensor, "c2 c1 3 3"]:
        """The sum of the terms."""
        v = self.vector[:5].unflatten(1, (-1, 1, 1, 1))
        c1 = self.id_tensor.shape[0]
        sequential = torch.einsum(
            "othw,ti->oihw",
            self.weight_rbr_1x1_kxk_conv2,
            (self.weight_rbr_1x1_kxk_idconv1 + self.id_tensor).flatten(1),
        )
        pointwise = self.weight_rbr_gconv_pw.reshape(-1, c1, DEPTHWISE)
        depthwise = self.weight_rbr_gconv_dw.reshape(c1, DEPTHWISE, 3, 3)
        return (
            v[0] * self.weight_rbr_origin
            + v[1] * self.weight_rbr_avg_conv * self.weight_rbr_avg_avg
            + v[2] * self.weight_rbr_pfir_conv * self.weight_rbr_prior.unsqueeze(1)
            + v[3] * sequential
            + v[4] * torch.einsum("oie,iehw->oihw", pointwise, depthwise)
        )

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.bn(nn.functional.conv2d(x, self.kernel(), stride=self.stride, padding=1))


def frequency_prior(channels: int) -> Float[Tensor, "c 3 3"]:
    """Cosines of increasing frequency: along the rows in the first half of the channels, then along the columns."""
    half = channels // 2
    o, t = torch.arange(channels, dtype=torch.float64), torch.arange(3, dtype=torch.float64)
    frequency = torch.where(o < half, o + 1, o + 1 - half)
    wave = torch.cos(math.pi * (t + 0.5) * frequency.unsqueeze(1) / 3)
    by_row, by_column = wave.unsqueeze(2).expand(-1, 3, 3), wave.unsqueeze(1).expand(-1, 3, 3)
    return torch.where((o < half).reshape(-1, 1, 1), by_row, by_column).float()


def fuse_branches(
    shape: tuple[int, int, int, int],
    dense: tuple[Tensor, nn.Module],
    point: tuple[Tensor, nn.Module],
    identity: nn.Module | None,
) -> nn.Conv2d:
    """One 3×3 convolution with bias that equals the sum of a 3×3, a 1×1 and an identity branch with batch norms.

    Args:
        shape: input channels, output channels, stride, groups.
        dense: kernel and batch norm of the 3×3 branch.
        point: kernel and batch norm of the 1×1 branch.
        identity: batch norm of the identity branch, if there is one.
    """
    c1, c2, stride, groups = shape
    scale, bias = norm_scale_and_shift(dense[1])
    weight = to_float64(dense[0]) * scale.reshape(-1, 1, 1, 1)
    scale, shift = norm_scale_and_shift(point[1])
    weight[:, :, 1:2, 1:2] += to_float64(point[0]) * scale.reshape(-1, 1, 1, 1)
    bias = bias + shift
    if identity is not None:
        scale, shift = norm_scale_and_shift(identity)
        # kernels have only the input channels of their group, so the diagonal restarts with each group
        channel = torch.arange(c2, device=weight.device)
        weight[channel, channel % (c1 // groups), 1, 1] += scale
        bias = bias + shift
    like = dense[0]
    fused = nn.Conv2d(c1, c2, 3, stride, 1, groups=groups, device=like.device, dtype=like.dtype).requires_grad_(False)
    assert fused.bias is not None
    fused.weight.copy_(weight.to(like.dtype))
    fused.bias.copy_(bias.to(like.dtype))
    return fused.eval()


def _kernel_parameter(*shape: int) -> nn.Parameter:
    """A kernel with torch's default initialization of convolutions."""
    kernel = torch.empty(*shape)
    nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
    return nn.Parameter(kernel)


def _check_three_by_three(kernel: tuple[Any, ...], padding: tuple[Any, ...]) -> None:
    if kernel not in ((), (3,)) or padding not in ((), (None,), (1,)):
        raise UserError(f"kernel must be 3 and padding 1, not {', '.join(map(str, kernel + padding))}")
