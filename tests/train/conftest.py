"""A dataset and a model so small that a training takes seconds."""

from pathlib import Path

import cv2
import pytest

from yolo_cli.dataset.synthetic import draw
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.architecture import find_architecture


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 + 8 images of shapes; beside them `tiny.yaml` and `tiny-tal.yaml`, of a quarter of YOLOv5n's width."""
    folder = tmp_path_factory.mktemp("small")
    for split, (number, count) in {"train": (0, 24), "val": (1, 8)}.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            image, rows = draw(number, i)
            cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image[..., ::-1])
            lines = [f"{int(r[0])} " + " ".join(f"{v:.6f}" for v in r[1:]) for r in rows]
            (folder / f"labels/{split}/{i}.txt").write_text("\n".join(lines))
    names = ["circle", "square", "triangle"]
    write_mapping(folder / "data.yaml", {"path": ".", "train": "images/train", "val": "images/val", "names": names})
    for name, cfg in {"tiny": "n", "tiny-tal": "n-tal"}.items():
        narrow = {**find_architecture(cfg).to_mapping(), "width_multiple": 1 / 16}
        write_mapping(folder / f"{name}.yaml", narrow)
    return folder / "data.yaml"
