"""Decode only the rows of a prediction that can become detections."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from yolo_cli.boxes.nms_limits import true_positions
from yolo_cli.model.heads import Head, RawMaps

_MARGIN = 1e-3  # in logits; NMS makes the exact comparison on the probability


def decode_candidates(head: Head, raw: RawMaps, conf: float) -> list[Float[Tensor, "_ k"]]:
    """The rows of `head.decode(raw)` whose objectness can exceed `conf`, per image and in the same order.

    Of 25,000 rows, about 100 remain at usual thresholds and 1,500 in evaluation, so most of the decoding is saved.
    """
    min_logit = math.log(conf / (1 - conf)) - _MARGIN if 0 < conf < 1 else -math.inf if conf <= 0 else math.inf
    rows, images = [], []
    for scale, (values, stride) in enumerate(zip(raw, head.strides, strict=True)):
        _, a, h, w, outputs = values.shape
        flat = values.reshape(-1, outputs)
        position = true_positions(head.highest_logit(flat) > min_logit)
        y = flat.index_select(0, position).float()
        cell = position % (h * w)
        box = head.boxes(y[:, : head.box_outputs], head.base_wh(scale)[position // (h * w) % a], scale)
        center = box[:, :2] + torch.stack((cell % w, cell // w), 1)
        rows.append(torch.cat((center * stride, box[:, 2:] * stride, head.confidence(y)), 1))
        images.append(position // (a * h * w))
    if raw[0].shape[0] == 1:
        return [torch.cat(rows)]
    all_rows, image = torch.cat(rows), torch.cat(images)
    return [all_rows[image == i] for i in range(raw[0].shape[0])]
