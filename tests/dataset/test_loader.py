import multiprocessing
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset import decoded_images, pixel_cache, shared_memory
from yolo_cli.dataset.label_index import LabelIndex, build_index
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.pixel_cache import build_pixel_cache
from yolo_cli.dataset.sampler import (
    RECT_GROUP,
    EpochBatchSampler,
    class_weights,
    image_weights,
    multi_scale_size,
    rect_batches,
    rect_canvases,
)
from yolo_cli.dataset.samples import DetectionDataset
from yolo_cli.errors import UserError

HYP = replace(Hyperparameters(), mixup=0.3, degrees=5.0, flipud=0.2)
SIZES = [(60, 80), (80, 60), (64, 64), (40, 90), (90, 40), (120, 160), (50, 60)]


@pytest.fixture
def index(make_images) -> LabelIndex:
    labels = ["0 0.5 0.5 0.4 0.6\n1 0.25 0.25 0.2 0.2\n"] * (len(SIZES) - 1) + [None]
    images = make_images(SIZES, labels)
    return build_index(images, 3, strict=False, cache_dir=None, workers=0, progress=None)


def training(index: LabelIndex, **changes):
    options = {"img": (64, 64), "batch": 3, "hyp": HYP, "seed": 5, "workers": 0, "stride": 32, **changes}
    return train_loader(index, **options)


def same(a: Batch, b: Batch) -> bool:
    return a.indices == b.indices and torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)


def epochs(loader, count: int = 2) -> list[Batch]:
    batches = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.mark.parametrize("changes", [{}, {"rect": True}, {"tile": 32}])
def test_batches_do_not_depend_on_the_number_of_workers(changes: dict[str, Any], index: LabelIndex) -> None:
    expected = epochs(training(index, **changes))
    assert len(expected) == 6
    for workers in (1, 2):
        for actual, other in zip(epochs(training(index, **changes, workers=workers)), expected, strict=True):
            assert same(actual, other)


def test_epochs_and_seeds_differ(index: LabelIndex) -> None:
    first = epochs(training(index))
    assert not torch.equal(first[0].images, first[3].images)
    assert not torch.equal(first[0].images, epochs(training(index, seed=6))[0].images)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch(workers: int, index: LabelIndex) -> None:
    whole = epochs(training(index), 2)
    loader = training(index, workers=workers)
    loader.set_epoch(1, 1)
    assert len(loader) == 2
    rest = list(loader)
    assert all(same(a, b) for a, b in zip(rest, whole[4:], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_ahead_does_not_change_the_batches(workers: int, index: LabelIndex) -> None:
    whole = epochs(training(index), 3)
    loader = training(index, workers=workers)
    actual = []
    for epoch in range(3):
        loader.set_epoch(epoch + 7)  # another epoch, that is then not wanted
        loader.load_ahead()
        loader.set_epoch(epoch)
        loader.load_ahead()
        actual += list(loader)
    assert all(same(a, b) for a, b in zip(actual, whole, strict=True))


def test_loading_ahead_reads_images_before_they_are_asked_for(
    index: LabelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_images, "_LIMIT", 0)
    loader = training(index, workers=1, batch=7)
    loader.load_ahead()
    time.sleep(3)  # far more than a worker needs for seven small images
    for i in range(len(index)):
        index.path(i).unlink()
    assert not failure(loader)
    assert "cannot be read" in failure(loader)


def test_shapes_types_and_ranges_of_a_training_batch(index: LabelIndex) -> None:
    batches = epochs(training(index, img=(64, 96)), 1)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(7))
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (3, 64, 96)
        assert batch.images.is_contiguous()
        assert batch.targets.dtype == torch.float32
        edges = torch.cat(
            [batch.targets[:, 2:4] - batch.targets[:, 4:] / 2, batch.targets[:, 2:4] + batch.targets[:, 4:] / 2]
        )
        assert ((edges > -1e-6) & (edges < 1 + 1e-6)).all()
        assert set(batch.targets[:, 0].tolist()) <= set(range(len(batch.indices)))


def test_iterating_does_not_change_the_global_generators(index: LabelIndex) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    epochs(training(index))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_no_boxes_at_all(make_images) -> None:
    index = build_index(
        make_images([(40, 40)] * 2, [None, None]), 1, strict=False, cache_dir=None, workers=0, progress=None
    )
    for loader in (training(index), val_loader(index, img=(64, 64), batch=2)):
        (batch,) = loader
        assert batch.targets.shape == (0, 6)


@pytest.mark.parametrize("cache", ["", "ram", "disk"])
@pytest.mark.parametrize("rect", [True, False])
def test_validation_boxes_map_back_to_the_file(rect: bool, cache: str, index: LabelIndex) -> None:
    seen = []
    for batch in val_loader(index, img=(64, 96), batch=3, stride=32, rect=rect, cache=cache):
        height, width = batch.images.shape[2:]
        if rect:
            assert height % 32 == width % 32 == 0
        else:
            assert (height, width) == (64, 96)
        seen += batch.indices
        for slot, (i, mapping) in enumerate(zip(batch.indices, batch.letterboxes, strict=True)):
            assert (mapping.height, mapping.width) == SIZES[i]
            rows = batch.targets[batch.targets[:, 0] == slot][:, 1:].numpy()
            x = (rows[:, 1] * width - mapping.pad_x) / mapping.scale_x / mapping.width
            h = rows[:, 4] * height / mapping.scale_y / mapping.height
            np.testing.assert_allclose(x, index.labels(i)[:, 1], atol=1e-5)
            np.testing.assert_allclose(h, index.labels(i)[:, 4], atol=1e-5)
    assert sorted(seen) == list(range(7))


def test_rectangular_canvases_are_large_enough() -> None:
    wide, square = np.array([(426, 640)] * RECT_GROUP), np.array([(640, 640), (600, 640)])
    sizes = np.concatenate((square, wide)).astype(np.int32)
    order, canvases = rect_canvases(sizes, (640, 640), 32, 0.0)
    assert sorted(order[:RECT_GROUP].tolist()) == list(range(2, RECT_GROUP + 2))
    assert canvases.tolist() == [[448, 640]] * RECT_GROUP + [[640, 640]] * 2
    assert rect_canvases(sizes, (640, 640), 32, 0.5)[1].tolist() == [[448, 672]] * RECT_GROUP + [[672, 672]] * 2


@pytest.mark.parametrize("batch", [1, 3, 16, 40])
def test_rect_batches_have_one_canvas_size_and_cover_all_images(batch: int) -> None:
    canvases = np.repeat(np.array([[64, 96], [96, 96], [64, 64]]), [20, 5, 1], axis=0)
    slots = rect_batches(canvases, batch)
    assert [i for start, end in slots for i in range(start, end)] == list(range(26))
    assert all(len({tuple(c) for c in canvases[start:end].tolist()}) == 1 for start, end in slots)
    assert all(0 < end - start <= batch for start, end in slots)


def test_shuffling_rectangular_batches_permutes_whole_batches(index: LabelIndex) -> None:
    def batches(epoch: int) -> list[tuple[int, ...]]:
        loader = training(index, rect=True, batch=2)
        loader.set_epoch(epoch)
        return [batch.indices for batch in loader]

    orders = [batches(epoch) for epoch in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    assert len({frozenset(order) for order in orders}) == 1


class TestCacheOfPixels:
    @pytest.mark.parametrize("kind", ["ram", "disk"])
    def test_same_validation_pixels(self, kind: str, index: LabelIndex) -> None:
        plain, cached = (list(val_loader(index, img=(64, 64), batch=4, cache=cache)) for cache in ("", kind))
        assert all(same(a, b) for a, b in zip(plain, cached, strict=True))

    @pytest.mark.parametrize("kind", ["ram", "disk"])
    def test_workers_share_it(self, kind: str, index: LabelIndex) -> None:
        alone, shared = (epochs(training(index, cache=kind, workers=workers), 1) for workers in (0, 2))
        assert all(same(a, b) for a, b in zip(alone, shared, strict=True))

    def test_disk_cache_is_reused_until_an_image_changes(self, index: LabelIndex, own_cache: Path, make_images) -> None:
        build_pixel_cache(index, (64, 64), "disk", 1)
        (file,) = (own_cache / "pixels").iterdir()
        written = file.stat().st_mtime_ns
        build_pixel_cache(index, (64, 64), "disk", 1)
        assert file.stat().st_mtime_ns == written
        image = index.path(0)
        image.write_bytes(image.read_bytes() + b" ")
        build_pixel_cache(index, (64, 64), "disk", 1)
        assert len(list((own_cache / "pixels").iterdir())) == 2

    def test_disk_cache_pickles_as_its_path(self, index: LabelIndex) -> None:
        cache = build_pixel_cache(index, (64, 64), "disk", 1)
        packed = pickle.dumps(cache)
        assert len(packed) < 2000
        np.testing.assert_array_equal(pickle.loads(packed)[3], cache[3])

    def test_no_room(self, index: LabelIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pixel_cache, "free_memory", lambda: 1000)
        with pytest.raises(UserError, match=r"--cache: the decoded images take .* memory has .* use --cache disk"):
            training(index, cache="ram")

    def test_unknown_kind(self, index: LabelIndex) -> None:
        with pytest.raises(UserError, match="use ram or disk"):
            training(index, cache="tape")


def failure(loader) -> str:
    """The message of the UserError. pytest.raises would keep the exception, and with it the workers, alive."""
    try:
        list(loader)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["deleted", "truncated", "replaced"])
def test_the_error_names_a_file_that_was_damaged_after_indexing(
    damage: str, workers: int, index: LabelIndex, make_images
) -> None:
    file = index.path(3)
    if damage == "deleted":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    else:
        file.write_bytes(index.path(0).read_bytes())
    message = failure(val_loader(index, img=(64, 64), batch=2, workers=workers))
    assert message.startswith(str(file))
    assert "Traceback" not in message


def test_index_is_pickled_as_a_handle_where_there_is_room(index: LabelIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, pickled_whole in ((2**40, False), (1000, True)):
        monkeypatch.setattr(shared_memory, "free_memory", lambda room=room: room)
        dataset = DetectionDataset(index, (64, 64))
        state = dataset._shared.__getstate__()
        assert ("index" in state) == pickled_whole
        copy = pickle.loads(pickle.dumps(dataset))
        assert [copy._index.path(i) for i in range(len(copy))] == [index.path(i) for i in range(len(index))]
        assert copy._index.fingerprint == index.fingerprint
        for i in range(len(index)):
            np.testing.assert_array_equal(copy._index.labels(i), index.labels(i))
        np.testing.assert_array_equal(copy._index.sizes, index.sizes)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["ram", ""])
def test_spawned_workers(cache: str, index: LabelIndex) -> None:
    expected = epochs(training(index, cache=cache), 1)
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        loader = training(index, cache=cache, workers=1)
        assert all(same(a, b) for a, b in zip(epochs(loader, 1), expected, strict=True))
    finally:
        multiprocessing.set_start_method(usual, force=True)


class TestSampler:
    def test_shards_partition_an_epoch(self) -> None:
        for shuffle in (False, True):
            shards = []
            for rank in range(3):
                batches = EpochBatchSampler(10, 2, (64, 64), seed=1, shuffle=shuffle, rank=rank, world_size=3)
                shards.append([key.index for keys in batches for key in keys])
                assert len(batches) == len(list(batches))
            everything = sorted(i for shard in shards for i in shard)
            if shuffle:  # equal shares: two of the first are taken again
                assert [len(shard) for shard in shards] == [4, 4, 4]
                assert set(everything) == set(range(10))
            else:
                assert everything == list(range(10))

    def test_weighted_sampling(self) -> None:
        weights = np.array([0.0, 1.0, 3.0])
        batches = EpochBatchSampler(3, 1, (64, 64), weights=weights, shuffle=True)
        keys = []
        for epoch in range(400):
            batches.set_epoch(epoch)
            keys += [key for (key,) in batches]
        drawn = np.bincount([key.index for key in keys], minlength=3)
        assert drawn[0] == 0
        assert drawn[2] / drawn[1] == pytest.approx(3, rel=0.2)
        assert len({(key.epoch, key.index, key.repeat) for key in keys}) == len(keys)

    def test_new_weights_for_an_epoch(self) -> None:
        batches = EpochBatchSampler(4, 4, (64, 64), shuffle=True)
        batches.set_epoch(1, weights=np.array([0.0, 0.0, 1.0, 0.0]))
        (keys,) = batches
        assert [key.index for key in keys] == [2] * 4
        assert [key.repeat for key in keys] == [0, 1, 2, 3]

    def test_weights_of_classes_and_images(self, make_images) -> None:
        box = ".5 .5 .1 .1\n"
        labels = [f"0 {box}1 {box}", f"0 {box}", None]
        index = build_index(
            make_images([(20, 20)] * 3, labels), 3, strict=True, cache_dir=None, workers=0, progress=None
        )
        np.testing.assert_allclose(class_weights(index, 3), np.array([0.5, 1, 1]) / 2.5)
        np.testing.assert_allclose(image_weights(index, 3), np.array([1.5, 0.5, 0]) / 2.5)
        np.testing.assert_allclose(image_weights(index, 3, np.array([2.0, 0, 1])), np.array([1, 1, 0]) / 2.5)


def test_multi_scale_sizes() -> None:
    sizes = [multi_scale_size(0, 1, step, (640, 320), 32) for step in range(300)]
    assert sizes == [multi_scale_size(0, 1, step, (640, 320), 32) for step in range(300)]
    heights, widths = np.array(sizes).T
    assert (heights % 32 == 0).all()
    assert (heights.min(), heights.max()) == (320, 960)
    assert (widths.min(), widths.max()) == (160, 480)
    assert (np.abs(heights / 2 - widths) <= 32).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_boxes(workers: int, make_images) -> None:
    index = build_index(
        make_images([(20, 20)] * 2, [None] * 2), 3, strict=False, cache_dir=None, workers=0, progress=None
    )
    (batch,) = training(index, workers=workers, batch=2)
    assert batch.targets.shape == (0, 6)
    assert batch.targets.dtype == torch.float32


def test_workers_end_with_a_line_where_shared_memory_is_full(
    index: LabelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(size: int) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")

    loader = training(index, workers=1)
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    assert failure(loader).startswith("shared memory has no room for 0 MB more")
