"""A small network, its checkpoint and a dataset for it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yolo_cli.model.build import DetectionModel
from yolo_cli.weights import checkpoint
from yolo_cli.weights.darknet.network import read_network

# A two-scale network of every kind of layer, small enough to train in a test.
CFG = """\
[net]
width=64
height=32
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=mish
[convolutional]
filters=16
activation=linear
[yolo]
mask=2,3
anchors=8,8, 16,16, 24,24, 40,40
classes=3
[route]
layers=-3
[upsample]
[route]
layers=-1,1
[convolutional]
filters=16
activation=logistic
[yolo]
mask=0,1
anchors=8,8, 16,16, 24,24, 40,40
classes=3
scale_x_y=2
new_coords=1
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    (tmp_path / "net.cfg").write_text(CFG)
    return tmp_path / "net.cfg"


@pytest.fixture
def ours(tmp_path: Path, cfg: Path) -> Path:
    """A checkpoint of the network, its numbers far from where they start."""
    torch.manual_seed(0)
    model = DetectionModel(read_network(cfg).architecture, ("circle", "square", "triangle"))
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "anchors" not in name:
            value.uniform_(0.1, 1.0)
    checkpoint.save(tmp_path / "ours.pt", model, epoch=4)
    return tmp_path / "ours.pt"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of one bright square each, for both splits."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "train").mkdir(parents=True)
    for i in range(12):
        image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        x, y = rng.integers(4, 40, 2)
        image[y : y + 16, x : x + 16] = 250
        cv2.imwrite(str(tmp_path / f"data/images/train/{i}.png"), image)
        (tmp_path / f"data/labels/train/{i}.txt").write_text(f"1 {(x + 8) / 64} {(y + 8) / 64} .25 .25\n")
    spec = tmp_path / "data.yaml"
    spec.write_text("path: data\ntrain: images/train\nval: images/train\nnames: [circle, square, triangle]\n")
    return spec
