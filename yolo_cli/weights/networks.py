"""The architecture that `--cfg` names, whatever the kind of file."""

import os
from pathlib import Path

from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.weights.darknet.network import read_network


def is_darknet_cfg(cfg: str) -> bool:
    """Whether `--cfg` names a Darknet network."""
    return Path(cfg).suffix.lower() == ".cfg"


def find_network(cfg: str) -> Architecture:
    """An architecture: a Darknet .cfg, a YAML file, a shipped name, or a size such as `s` for yolov5s."""
    return read_network(Path(os.path.expanduser(cfg))).architecture if is_darknet_cfg(cfg) else find_architecture(cfg)
