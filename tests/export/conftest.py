"""Published weights, and a few photographs of coco128 as a dataset."""

import shutil
from pathlib import Path

import pytest
import torch

from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.weights.load import load_weights

PHOTOS = 6
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def traceable(unchecked_shapes: None) -> None:
    """Exporters trace with symbolic sizes, which jaxtyping does not accept."""


@pytest.fixture(scope="session")
def weights(reference: Path) -> Path:
    return reference / "weights/yolov5n.pt"


@pytest.fixture(scope="session")
def fused(weights: Path) -> DetectionModel:
    return fuse(load_weights(weights).build_model().eval())


@pytest.fixture(scope="session")
def photos(reference: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data.yaml with a few images."""
    folder, source = tmp_path_factory.mktemp("photos"), reference / "datasets/coco128"
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
        (folder / kind).mkdir()
        for image in sorted((source / "images/val2017").glob("*.jpg"))[:PHOTOS]:
            file = source / kind / "val2017" / f"{image.stem}{suffix}"
            if file.is_file():
                shutil.copy(file, folder / kind)
    names = list(load_weights(weights).names)
    write_mapping(folder / "data.yaml", {"path": str(folder), "train": "images", "val": "images", "names": names})
    return folder / "data.yaml"
