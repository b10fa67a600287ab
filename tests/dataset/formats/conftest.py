"""A small dataset whose boxes have whole pixels, so that every format can hold them exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

NAMES = ("cat", "small dog", "bird")
Box = tuple[int, int, int, int, int]  # class, x1, y1, x2, y2


@dataclass(frozen=True)
class Drawn:
    """An image of the dataset: its path, (height, width) and boxes in pixels."""

    file: Path
    size: tuple[int, int]
    boxes: tuple[Box, ...]


@pytest.fixture
def drawn(tmp_path: Path) -> list[Drawn]:
    """Nine images in set/images/train, two of them background, one with a blank and an accent in its name."""
    random = np.random.default_rng(3)
    folder = tmp_path / "set/images/train"
    folder.mkdir(parents=True)
    result = []
    for i, name in enumerate(["a", "b", "c d é", "e", "f", "g", "h", "i", "j.k"]):
        height, width = ((48, 64), (80, 60), (50, 50))[i % 3]
        file = folder / f"{name}.{'png' if i % 2 else 'jpg'}"
        cv2.imwrite(str(file), random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        boxes = []
        for _ in range((3, 1, 0)[i % 3]):
            x1, y1 = int(random.integers(0, width - 12)), int(random.integers(0, height - 12))
            x2, y2 = int(random.integers(x1 + 4, width + 1)), int(random.integers(y1 + 4, height + 1))
            boxes.append((int(random.integers(len(NAMES))), x1, y1, x2, y2))
        result.append(Drawn(file, (height, width), tuple(boxes)))
    return result


@pytest.fixture
def data_yaml(tmp_path: Path) -> Callable[..., str]:
    """Writes set/data.yaml with these keys, and returns its path."""

    def write(**keys: object) -> str:
        (tmp_path / "set").mkdir(exist_ok=True)
        file = tmp_path / "set/data.yaml"
        file.write_text(yaml.safe_dump(keys))
        return str(file)

    return write
