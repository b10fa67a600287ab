"""Intersection over union: of all pairs of boxes, and complete IoU (CIoU) row by row."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def pairwise_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """IoU of each box of `a` with each box of `b`, both xyxy. 0 if the union has no area."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(dim=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(dim=1)
    union = area_a[:, None] + area_b[None] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def complete_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"], eps: float = 1e-7) -> Float[Tensor, " n"]:
    """CIoU of box i of `a` with box i of `b`, both cxcywh, differentiable in `a`.

    IoU − ρ²/c² − αv (Zheng et al. 2020, "Distance-IoU Loss", equations 9 to 11): ρ is the distance between the
    centers, c the diagonal of the enclosing box, v the difference of the aspect ratios. α has no gradient
    (section 4.3).
    """
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.unbind(1), b.unbind(1)
    left = torch.minimum(ax - aw / 2, bx - bw / 2)
    right = torch.maximum(ax + aw / 2, bx + bw / 2)
    top = torch.minimum(ay - ah / 2, by - bh / 2)
    bottom = torch.maximum(ay + ah / 2, by + bh / 2)
    width, height = right - left, bottom - top
    # along an axis, the intersection is the sum of both lengths minus the length that they cover together
    intersection = (aw + bw - width).clamp(min=0) * (ah + bh - height).clamp(min=0)
    iou = intersection / (aw * ah + bw * bh - intersection + eps)
    diagonal = width.square() + height.square() + eps
    distance = (bx - ax).square() + (by - ay).square()
    v = (4 / math.pi**2) * (torch.atan(bw / (bh + eps)) - torch.atan(aw / (ah + eps))).square()
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return iou - distance / diagonal - alpha * v
