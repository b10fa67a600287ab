"""Convolutions that train as several branches and run as one (Ding et al. 2021, RepVGG; Hu et al. 2022, OREPA)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.blocks.activations import activation as make_activation
from yolo_cli.model.blocks.conv import Conv
from yolo_cli.model.plan import Plan, PlannedModule, Scaling, integer

DEPTHWISE = 8  # expansion of OREPA's depthwise-separable term


class RepConv(PlannedModule):
    """3×3, 1×1 and, where the shapes allow, identity branch, each with batch norm, summed, then the activation.

    `fuse` folds them into one 3×3 convolution with bias, named as published deployed weights name it.
    """

    takes_activation = True

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
        self.rbr_dense: nn.Sequential | None = nn.Sequential(
            nn.Conv2d(c1, c2, k, s, 1, groups=g, bias=False), nn.BatchNorm2d(c2)
        )
        self.rbr_1x1: nn.Sequential | None = nn.Sequential(
            nn.Conv2d(c1, c2, 1, s, groups=g, bias=False), nn.BatchNorm2d(c2)
        )

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
        """Fold all branches into one convolution; eval mode only."""
        if self.rbr_dense is None or self.rbr_1x1 is None:
            return
        dense, point = self.rbr_dense[0].weight, self.rbr_1x1[0].weight
        assert isinstance(dense, Tensor)
        assert isinstance(point, Tensor)
        self.rbr_reparam = one_convolution(
            self.shape, (dense, self.rbr_dense[1]), (point, self.rbr_1x1[1]), self.rbr_identity
        )
        self.rbr_dense = self.rbr_1x1 = self.rbr_identity = None

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: those of Conv, kernel 3 and padding 1."""
        plan = Conv.plan(channels, args, repeats, scaling)
        _three_by_three(plan.args[2:3], plan.args[4:5])
        return plan


class RepConvOREPA(PlannedModule):
    """RepConv whose 3×3 kernel is itself generated, each step, from a sum of structured kernels (Hu et al. 2022)."""

    takes_activation = True

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, p: int | None = None, *, activation: str = "SiLU"
    ) -> None:
        super().__init__()
        self.shape = (c1, c2, s, 1)
        self.act = make_activation(activation)
        self.rbr_reparam: nn.Conv2d | None = None
        identity = c1 == c2 and s == 1
        self.rbr_identity = nn.BatchNorm2d(c1) if identity else None
        self.rbr_dense: GeneratedConv | None = GeneratedConv(c1, c2, s, rows=6 if identity else 5)
        self.rbr_1x1: PointConv | None = PointConv(c1, c2, s)

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
        """Generate the kernel once and fold all branches into one convolution; eval mode only."""
        if self.rbr_dense is None or self.rbr_1x1 is None:
            return
        dense, point = self.rbr_dense, self.rbr_1x1
        self.rbr_reparam = one_convolution(
            self.shape, (dense.kernel(), dense.bn), (point.conv.weight, point.bn), self.rbr_identity
        )
        self.rbr_dense = self.rbr_1x1 = self.rbr_identity = None

    @classmethod
    def plan(cls, channels: Sequence[int], args: Sequence[Any], repeats: int, scaling: Scaling) -> Plan:
        """YAML arguments: out channels, kernel 3, stride 1, padding 1."""
        plan = Conv.plan(channels, args, repeats, scaling)
        integer(len(plan.args), "the number of arguments", 2, 5)
        _three_by_three(plan.args[2:3], plan.args[4:5])
        return plan


class PointConv(nn.Module):
    """1×1 convolution with batch norm."""

    def __init__(self, c1: int, c2: int, s: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1, s, bias=False)
        self.bn = nn.BatchNorm2d(c2)

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.bn(self.conv(x))


class GeneratedConv(nn.Module):
    """3×3 convolution with batch norm; the kernel is a weighted sum of five terms (Hu et al. 2022, section 3.2).

    Parameters are named as published weights name them.
    """

    def __init__(self, c1: int, c2: int, s: int, rows: int) -> None:
        super().__init__()
        self.stride = s
        self.weight_rbr_origin = _drawn(c2, c1, 3, 3)
        self.weight_rbr_avg_conv = _drawn(c2, c1, 1, 1)
        self.weight_rbr_pfir_conv = _drawn(c2, c1, 1, 1)
        self.weight_rbr_1x1_kxk_idconv1 = nn.Parameter(torch.zeros(c1, c1, 1, 1))
        self.weight_rbr_1x1_kxk_conv2 = _drawn(c2, c1, 3, 3)
        self.weight_rbr_gconv_dw = _drawn(DEPTHWISE * c1, 1, 3, 3)
        self.weight_rbr_gconv_pw = _drawn(c2, DEPTHWISE * c1, 1, 1)
        share = torch.tensor([0.25, 0.25, 0.0, 0.5, 0.5, 0.5])[:rows]
        self.vector = nn.Parameter(share.reshape(-1, 1).repeat(1, c2))
        self.weight_rbr_avg_avg = nn.Buffer(torch.full((3, 3), 1 / 9))
        self.id_tensor = nn.Buffer(torch.eye(c1).reshape(c1, c1, 1, 1))
        self.weight_rbr_prior = nn.Buffer(frequency_prior(c2))
        self.bn = nn.BatchNorm2d(c2)

    def kernel(self) -> Float[Tensor, "c2 c1 3 3"]:
        """The kernel that the terms add up to."""
        v = self.vector[:5].unflatten(1, (-1, 1, 1, 1))
        c1 = self.id_tensor.shape[0]
        sequential = torch.einsum(
            "othw,ti->oihw",
            self.weight_rbr_1x1_kxk_conv2,
            (self.weight_rbr_1x1_kxk_idconv1 + self.id_tensor).flatten(1),
        )
        pointwise = self.weight_rbr_gconv_pw.reshape(-1, c1, DEPTHWISE)
        depthwise = self.weight_rbr_gconv_dw.reshape(c1, DEPTHWISE, 3, 3)
        kernel: Tensor = (
            v[0] * self.weight_rbr_origin
            + v[1] * self.weight_rbr_avg_conv * self.weight_rbr_avg_avg
            + v[2] * self.weight_rbr_pfir_conv * self.weight_rbr_prior.unsqueeze(1)
            + v[3] * sequential
            + v[4] * torch.einsum("oie,iehw->oihw", pointwise, depthwise)
        )
        return kernel

    def forward(self, x: Float[Tensor, "b c1 h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.bn(nn.functional.conv2d(x, self.kernel(), stride=self.stride, padding=1))


def frequency_prior(channels: int) -> Float[Tensor, "c 3 3"]:
    """Cosines of rising frequency, along the rows for the first half of the channels, the columns for the second."""
    half = channels // 2
    o, t = torch.arange(channels, dtype=torch.float64), torch.arange(3, dtype=torch.float64)
    frequency = torch.where(o < half, o + 1, o + 1 - half)
    wave = torch.cos(math.pi * (t + 0.5) * frequency.unsqueeze(1) / 3)
    by_row, by_column = wave.unsqueeze(2).expand(-1, 3, 3), wave.unsqueeze(1).expand(-1, 3, 3)
    return torch.where((o < half).reshape(-1, 1, 1), by_row, by_column).float()


def one_convolution(
    shape: tuple[int, int, int, int],
    dense: tuple[Tensor, nn.Module],
    point: tuple[Tensor, nn.Module],
    identity: nn.BatchNorm2d | None,
) -> nn.Conv2d:
    """The 3×3 convolution with bias that equals the sum of a 3×3, a 1×1 and an identity branch with batch norms.

    `shape` is (in channels, out channels, stride, groups); branches are (kernel, batch norm).
    """
    c1, c2, stride, groups = shape
    weight, (gain, bias) = dense[0].double(), _gain_and_bias(dense[1])
    weight = weight * gain.reshape(-1, 1, 1, 1)
    gain, more = _gain_and_bias(point[1])
    weight[:, :, 1:2, 1:2] += point[0].double() * gain.reshape(-1, 1, 1, 1)
    bias = bias + more
    if identity is not None:
        gain, more = _gain_and_bias(identity)
        # a kernel holds the inputs of its own group alone, so the diagonal starts anew with every group
        channel = torch.arange(c2, device=weight.device)
        weight[channel, channel % (c1 // groups), 1, 1] += gain
        bias = bias + more
    like = dense[0]
    fused = nn.Conv2d(c1, c2, 3, stride, 1, groups=groups, device=like.device, dtype=like.dtype).requires_grad_(False)
    assert fused.bias is not None
    fused.weight.copy_(weight)
    fused.bias.copy_(bias)
    return fused.eval()


def _gain_and_bias(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as y = gain · x + bias, in double precision."""
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gain = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    return gain, bn.bias.double() - bn.running_mean.double() * gain


def _drawn(*shape: int) -> nn.Parameter:
    """A kernel drawn as torch draws those of its convolutions."""
    kernel = torch.empty(*shape)
    nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
    return nn.Parameter(kernel)


def _three_by_three(kernel: tuple[Any, ...], padding: tuple[Any, ...]) -> None:
    if kernel not in ((), (3,)) or padding not in ((), (None,), (1,)):
        raise UserError(f"its kernel is 3 and its padding 1, not {', '.join(map(str, kernel + padding))}")
