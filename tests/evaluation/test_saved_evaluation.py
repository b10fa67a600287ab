"""evaluation.npz, the pixels behind it, and the brightness that is measured on the way."""

import tarfile
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.report.evaluations import SIZE, data_of, saved_of
from yolo_cli.batch import Batch
from yolo_cli.dataset.images import letterbox
from yolo_cli.dataset.label_index import build_index
from yolo_cli.errors import UserError
from yolo_cli.evaluation.brightness import Brightness
from yolo_cli.evaluation.saved_evaluation import FILE, SavedEvaluation, load_evaluation, save_evaluation

BOX = (10.0, 10.0, 40.0, 40.0)


def same(a: object, b: object) -> None:
    for field in fields(a):  # type: ignore[arg-type]
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("exact", [True, False], ids=["float32", "float64"])
def test_what_is_read_is_what_was_written(exact: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 500, (200, 4))
    corners = corners.astype(np.float32).astype(np.float64) if exact else corners
    confidence = random.random(200).astype(np.float32 if exact else np.float64)
    found = [(i % 3, 0, (x, y, u - x, v - y), float(confidence[i])) for i, (x, y, u, v) in enumerate(corners.tolist())]
    data = data_of([(0, 1, BOX), (2, 0, BOX)], found, images=3, crowd=[False, True])
    saved = saved_of(data, ["a", "ü"], tmp_path / "images", ["0.jpg", "1 ü.jpg", "\udcff.jpg"])
    saved.brightness[1] = np.nan
    save_evaluation(tmp_path, saved)
    again = load_evaluation(tmp_path)
    same(again.data.ground_truth, saved.data.ground_truth)
    same(again.data.predictions, saved.data.predictions)
    for name in ("names", "split", "fingerprint", "paths"):
        assert getattr(again, name) == getattr(saved, name)
    np.testing.assert_array_equal(again.brightness, saved.brightness)
    np.testing.assert_array_equal(again.image(2), saved.image(2))
    with np.load(tmp_path / FILE) as stored:
        assert stored["boxes"].dtype == (np.float32 if exact else np.float64)


def test_an_image_that_changed_is_an_error(tmp_path: Path) -> None:
    saved = saved_of(data_of([(0, 0, BOX)], []), ["a"], tmp_path)
    assert saved.image(0).shape == (*SIZE, 3)
    smaller = replace(saved, data=replace(saved.data, sizes=np.array([[50, 50]])))
    with pytest.raises(UserError, match="has changed its size"):
        smaller.image(0)
    rows, columns, _ = saved.image(0, (30, 60)).shape
    assert 30 <= rows < 100
    assert columns == pytest.approx(2 * rows, abs=1)
    assert saved.image(0, (70, 150)).shape == (*SIZE, 3)
    with pytest.raises(UserError, match="has changed its size"):
        smaller.image(0, (10, 10))
    Path(saved.paths[0]).unlink()
    with pytest.raises(UserError, match=r"0\.jpg: cannot be read"):
        saved.image(0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_evaluation(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"evaluation\.npz: cannot be read"):
        load_evaluation(tmp_path)


def test_images_in_a_shard(tmp_path: Path) -> None:
    colors = (40, 200)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for i, color in enumerate(colors):
            (tmp_path / f"{i}.png").write_bytes(cv2.imencode(".png", np.full((*SIZE, 3), color, np.uint8))[1].tobytes())
            (tmp_path / f"{i}.txt").write_text("0 .5 .5 .2 .2\n")
            for suffix in ("png", "txt"):
                tar.add(tmp_path / f"{i}.{suffix}", f"{i}.{suffix}")
                (tmp_path / f"{i}.{suffix}").unlink()
    index = build_index([tmp_path / "shard.tar"], 1, strict=True, cache_dir=None, workers=0, progress=None)
    # The evaluator sorts images by id; here the second image of the split comes first.
    data = replace(data_of([], [], images=2), image_ids=np.array([3, 7]))
    saved = SavedEvaluation.of(data, index, [7, 3], names=["a"], split="val", brightness=np.array([0.1, 0.9]))
    save_evaluation(tmp_path, saved)
    again = load_evaluation(tmp_path)
    assert [int(again.image(i)[0, 0, 0]) for i in range(2)] == [200, 40]
    assert again.position.tolist() == [1, 0]
    assert again.brightness == pytest.approx([0.9, 0.1])
    assert [Path(path).name for path in again.paths] == ["1.png", "0.png"]


def test_brightness_leaves_out_the_padding() -> None:
    brightness = Brightness(4)
    sizes, values = [(60, 200), (200, 90), (64, 64)], [0, 255, 51]
    canvases, boxes = zip(
        *(letterbox(np.full((*size, 3), v, np.uint8), (64, 96)) for size, v in zip(sizes, values, strict=True)),
        strict=True,
    )
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).contiguous()
    brightness(0, Batch(images, torch.zeros(0, 6), (3, 0, 1), tuple(boxes)), [])
    assert brightness.values[[3, 0, 1]] == pytest.approx([0.0, 1.0, 0.2], abs=1e-6)
    assert np.isnan(brightness.values[2])
