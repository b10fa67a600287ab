import hashlib
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.recording import Recording
from yolo_cli.dataset import synthetic
from yolo_cli.dataset.label_index import build_index
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.progress import Silent


def test_pixels_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for split in (0, 1):
        for i in range(8):
            image, rows = synthetic.draw(split, i)
            digest.update(image.tobytes())
            digest.update(np.round(rows * 10**6).astype("<i8").tobytes())
    assert digest.hexdigest() == "b1354d156a5922310983f9a7a2746cd16b7f54590e91670afaad15a2080545fe", (
        "raise synthetic.VERSION"
    )


def test_dataset_is_valid_and_balanced(own_cache: Path) -> None:
    reporter = Recording()
    spec = prepare(load_spec("shapes"), reporter)
    assert spec.root.is_relative_to(own_cache)
    for split, count in (("train", synthetic.TRAIN_IMAGES), ("val", synthetic.VAL_IMAGES)):
        images = split_files(spec, split)
        index = build_index(images, spec.nc, strict=True, cache_dir=None, workers=0, progress=None)
        assert len(index) == count
        per_class = np.bincount(index.classes, minlength=3)
        assert per_class.min() > 0.25 * per_class.sum()
        assert 1 <= (np.diff(index.offsets) == 0).sum() <= count // 10
        longest = index.boxes[:, 2:] * index.sizes[np.repeat(np.arange(count), np.diff(index.offsets))][:, ::-1]
        assert longest.min() >= 15
        assert longest.max() <= 91
        assert len(np.unique(index.sizes, axis=0)) > 3


def test_boxes_are_tight() -> None:
    image, rows = next((image, rows) for image, rows in (synthetic.draw(0, i) for i in range(20)) if len(rows) == 1)
    height, width = image.shape[:2]
    _, x, y, w, h = rows[0] * [1, width, height, width, height]
    ring = image[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)].astype(int)
    outside = image[max(round(y - h / 2) - 4, 0) : max(round(y - h / 2) - 1, 1)].reshape(-1, 3).mean(0)
    middle = ring[ring.shape[0] // 2, ring.shape[1] // 2]
    assert np.abs(middle - outside).sum() > 90


def test_train_and_val_differ() -> None:
    assert not np.array_equal(synthetic.draw(0, 0)[0].shape, synthetic.draw(1, 0)[0].shape) or not np.array_equal(
        synthetic.draw(0, 0)[0], synthetic.draw(1, 0)[0]
    )


def test_files_contain_the_drawn_pixels(tmp_path: Path) -> None:
    synthetic.generate(tmp_path / "s")
    image = cv2.imread(str(tmp_path / "s/images/val/0003.png"))[:, :, ::-1]
    np.testing.assert_array_equal(image, synthetic.draw(1, 3)[0])


def _prepare(_: int) -> int:
    return len(split_files(prepare(load_spec("shapes"), Silent()), "train"))


@pytest.mark.slow
def test_concurrent_processes_generate_one_dataset(own_cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_prepare, range(3)) == [synthetic.TRAIN_IMAGES] * 3
    assert [entry.name for entry in (own_cache / "datasets").iterdir()] == [f"shapes-v{synthetic.VERSION}"]
