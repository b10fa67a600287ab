from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests away from the user's cache folder and datasets."""
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("YOLO_DATASETS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes JPEGs of the given (height, width) and label texts into data/images and data/labels."""

    def make(sizes: list[tuple[int, int]], labels: list[str | None] | None = None) -> list[Path]:
        random = np.random.default_rng(0)
        images, texts = tmp_path / "data" / "images", tmp_path / "data" / "labels"
        images.mkdir(parents=True, exist_ok=True)
        texts.mkdir(parents=True, exist_ok=True)
        files = []
        for i, (height, width) in enumerate(sizes):
            coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            file = images / f"{i:03d}.jpg"
            cv2.imwrite(str(file), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
            files.append(file)
            text = "0 0.5 0.5 0.4 0.6\n1 0.25 0.25 0.2 0.2\n" if labels is None else labels[i]
            if text is not None:
                (texts / f"{i:03d}.txt").write_text(text)
        return files

    return make
