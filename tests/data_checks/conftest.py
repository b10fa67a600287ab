"""A dataset of photograph-like images with sound labels, in which a test plants faults."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.recording import Recording
from yolo_cli.commands import check
from yolo_cli.config import CheckConfig
from yolo_cli.data_checks.dataset import CheckResult
from yolo_cli.data_checks.findings import Finding


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's cache folder and datasets."""
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("YOLO_DATASETS", raising=False)


def photo(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Shading, shapes and texture: BGR pixels that no other seed resembles."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (4, 12, 40):
        noise = random.normal(0, 35, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


class Dataset:
    """A folder of images and labels; `rows` of the default labels have one box of each of two classes."""

    rows = ("0 0.3 0.3 0.2 0.2", "1 0.7 0.6 0.3 0.3")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = root / "data.yaml"
        root.mkdir()
        self.spec.write_text("path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
        for split, first, count in (("train", 0, 12), ("val", 100, 10)):
            for i in range(count):
                self.add(split, f"{first + i}.jpg", photo(first + i))

    def add(self, split: str, name: str, image: np.ndarray, rows: tuple[str, ...] | None = rows) -> Path:
        file = self.image(split, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), image)
        if rows is not None:
            self.label(split, name, *rows)
        return file

    def image(self, split: str, name: str) -> Path:
        return self.root / "images" / split / name

    def label(self, split: str, name: str, *rows: str) -> Path:
        file = (self.root / "labels" / split / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{row}\n" for row in rows))
        return file

    def check(self, **options: object) -> CheckResult:
        """The result of `yolo check` on this dataset."""
        defaults: dict[str, object] = {"data": str(self.spec), "html": False, "workers": 2, "advice": False}
        return check.run(CheckConfig(**{**defaults, **options}), Recording())  # type: ignore[arg-type]

    def find(self, code: str, **options: object) -> list[Finding]:
        return [finding for finding in self.check(**options).findings if finding.code == code]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")
