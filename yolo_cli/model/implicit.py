"""YOLOv7's heads: implicit knowledge around the last convolutions, and auxiliary outputs for training.

Wang, Yeh & Liao 2021, "You Only Learn One Representation" (implicit knowledge); 2023, "YOLOv7", section 4.2
(auxiliary heads).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.device import to_float64
from yolo_cli.model.heads import Detect, RawMaps


class ImplicitA(nn.Module):
    """Adds a learned offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.normal(torch.zeros(1, channels, 1, 1), 0.02))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.implicit


class ImplicitM(nn.Module):
    """Multiplies by a learned factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.normal(torch.ones(1, channels, 1, 1), 0.02))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.implicit


class IDetect(Detect):
    """Detect with an implicit offset before and an implicit factor after each convolution."""

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
        super().__init__(nc, anchors, channels)
        self.ia = nn.ModuleList(ImplicitA(c) for c in channels)
        self.im = nn.ModuleList(ImplicitM(self.outputs * self.per_scale) for _ in channels)

    def maps(self, x: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Apply the offset, convolution and factor of each scale."""
        if not self.ia:
            return super().maps(x)
        layers = zip(x, self.ia, self.m, self.im, strict=True)
        return [after(convolution(before(feature))) for feature, before, convolution, after in layers]

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold offsets and factors into the convolutions: f·(W(x + a) + b) = fW·x + f·(Wa + b)."""
        for before, convolution, after in zip(self.ia, self.m, self.im, strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            assert isinstance(before.implicit, Tensor)
            assert isinstance(after.implicit, Tensor)
            dtype = convolution.weight.dtype
            weight, factor = to_float64(convolution.weight), to_float64(after.implicit).reshape(-1)
            offset = weight.flatten(1) @ to_float64(before.implicit).reshape(-1)
            convolution.bias.copy_(((to_float64(convolution.bias) + offset) * factor).to(dtype))
            convolution.weight.copy_((weight * factor.reshape(-1, 1, 1, 1)).to(dtype))
        self.ia, self.im = nn.ModuleList(), nn.ModuleList()


class IAuxDetect(IDetect):
    """IDetect with a plain auxiliary convolution per scale; its sources are the main layers, then the auxiliary ones.

    With the main layers only, as in eval mode, it is an IDetect.
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
        main = self.main_sources(len(channels))
        super().__init__(nc, anchors, channels[:main])
        # published state dicts have the auxiliary convolutions before the implicit parts
        implicit = self.ia, self.im
        del self.ia, self.im
        self.m2 = nn.ModuleList(nn.Conv2d(c, self.outputs * self.per_scale, 1) for c in channels[main:])
        self.ia, self.im = implicit

    @classmethod
    def main_sources(cls, count: int) -> int:
        """The first half of the source layers."""
        return count // 2

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Add the prior of Detect to the auxiliary convolutions, too."""
        super().reset_bias()
        self._add_prior(self.m2)

    def forward(self, x: list[Float[Tensor, "b _ _ _"]]) -> RawMaps:
        """Raw predictions per scale, followed by the auxiliary ones if their source layers are given."""
        main = len(self.m)
        maps = super().forward(x[:main])
        if len(x) > main:
            maps += [self.split_anchors(layer(feature)) for feature, layer in zip(x[main:], self.m2, strict=True)]
        return maps

    def fuse(self) -> None:
        """Fold the implicit parts and remove the auxiliary convolutions."""
        super().fuse()
        self.m2 = nn.ModuleList()
