"""Decoding only what may become a detection."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.model.build import DetectionModel
from yolo_cli.model.heads import Detect, RawMaps

_MARGIN = 1e-3  # of a logit: the exact comparison is made later, on the probability


def decode_candidates(model: DetectionModel, raw: RawMaps, conf: float) -> list[Float[Tensor, "_ o"]]:
    """The rows that `model.decode` gives whose objectness may exceed `conf`, image by image, in the same order.

    Of some 25,000 rows of 85 numbers hardly a hundred pass, so this spares nearly all of the decoding.
    """
    head = model.head
    if type(head).decode is not Detect.decode:  # another head knows better how its maps are read
        return list(model.decode(raw))
    floor = math.log(conf / (1 - conf)) - _MARGIN if 0 < conf < 1 else -math.inf if conf <= 0 else math.inf
    rows, images = [], []
    for y, stride, anchors in zip(raw, head.strides, head.anchors, strict=True):
        image, anchor, row, column = (y[..., 4] > floor).nonzero(as_tuple=True)
        p = y[image, anchor, row, column].float().sigmoid()
        cells = torch.stack((column, row), 1)
        centre = (p[:, :2] * 2 - 0.5 + cells) * stride
        size = (p[:, 2:4] * 2).square() * (anchors.float() * stride)[anchor]
        rows.append(torch.cat((centre, size, p[:, 4:]), 1))
        images.append(image)
    every, image = torch.cat(rows), torch.cat(images)
    if raw[0].shape[0] == 1:
        return [every]
    return [every[image == i] for i in range(raw[0].shape[0])]
