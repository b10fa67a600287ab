"""Test-time augmentation: the network also sees images scaled down and mirrored."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from yolo_cli.dataset.images import PAD_VALUE

# Scale, and whether mirrored left to right: the passes that YOLO implementations usually make.
PASSES = ((1.0, False), (0.83, True), (0.67, False))

Forward = Callable[[Float[Tensor, "b 3 h w"]], list[Float[Tensor, "_ o"]]]


def augmented_rows(forward: Forward, images: Float[Tensor, "b 3 h w"], stride: int) -> list[Float[Tensor, "_ o"]]:
    """Decoded rows of all passes together, per image, in pixels of `images`."""
    width = images.shape[3]
    per_image: list[list[Tensor]] = [[] for _ in range(len(images))]
    for scale, mirrored in PASSES:
        changed = images.flip(3) if mirrored else images
        changed, (scale_y, scale_x) = _scaled(changed, scale, stride)
        for found, rows in zip(per_image, forward(changed), strict=True):
            back = rows.clone()
            back[:, :4] /= back.new_tensor([scale_x, scale_y] * 2)
            if mirrored:
                back[:, 0] = width - back[:, 0]
            found.append(back)
    return [torch.cat(found) for found in per_image]


def _scaled(
    images: Float[Tensor, "b 3 h w"], scale: float, stride: int
) -> tuple[Float[Tensor, "b 3 nh nw"], tuple[float, float]]:
    """Images scaled down and padded with gray at the right and bottom; the exact scales of height and width."""
    if scale == 1:
        return images, (1.0, 1.0)
    height, width = images.shape[2:]
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    small = functional.interpolate(images, size=(h, w), mode="bilinear", align_corners=False)
    padded = functional.pad(small, (0, -w % stride, 0, -h % stride), value=PAD_VALUE / 255)
    return padded.contiguous(memory_format=torch.channels_last), (h / height, w / width)
