"""Every model family overfits a few boxes with the loss that it is trained with."""

from dataclasses import replace

import pytest
import torch

from yolo_cli.config import Hyperparameters
from yolo_cli.loss.detection import DetectionLoss, scaled_loss_weights
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel

SIZE = (64, 64)
TARGETS = torch.tensor(  # image, class, cx, cy, w, h
    [[0, 0, 0.3, 0.4, 0.3, 0.5], [0, 1, 0.7, 0.6, 0.4, 0.3], [1, 2, 0.5, 0.5, 0.8, 0.7], [1, 0, 0.2, 0.8, 0.2, 0.3]]
)


@pytest.mark.parametrize(
    ("name", "width", "matching"),
    [
        ("yolov3-tiny", 1 / 4, "anchor"),
        ("yolov3-fpn", 1 / 8, "anchor"),
        ("yolov5s-v3.1", 1 / 4, "anchor"),
        ("yolov5l-resnet50", 1 / 8, "anchor"),
        ("yolov7-tiny", 1 / 2, "ota"),
        ("yolov7-w6", 1 / 8, "ota"),
        ("yolov7-w6", 1 / 8, "anchor"),
    ],
)
def test_the_loss_falls(name: str, width: float, matching: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(replace(find_architecture(name), width=width).with_classes(3))
    hyp = Hyperparameters()
    weights = scaled_loss_weights(hyp, len(model.strides), 3, (640, 640))
    loss = DetectionLoss(model.head.anchors, 3, hyp, weights, matching=matching, auxiliary=model.has_auxiliary)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    images, totals = torch.rand(2, 3, *SIZE), []
    for _ in range(25):
        parts = loss(model(images), TARGETS)
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
        totals.append(parts.total.item())
    assert totals[-1] < 0.8 * totals[0]
