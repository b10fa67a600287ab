"""Mosaics of neighbors in an epoch's order: which images, the same for every way of loading, and decoded once."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset import decoded_images, samples
from yolo_cli.dataset.decoded_images import DecodedImages
from yolo_cli.dataset.label_index import LabelIndex, build_index
from yolo_cli.dataset.loader import train_loader
from yolo_cli.dataset.sampler import EpochBatchSampler, SampleKey
from yolo_cli.errors import UserError

HYP = replace(Hyperparameters(), mixup=0.3, mosaic_window=4)
SIZES = [
    (60, 80),
    (80, 60),
    (64, 64),
    (40, 90),
    (90, 40),
    (120, 160),
    (50, 60),
    (70, 70),
    (64, 200),
    (33, 65),
    (48, 48),
]


def keys_of(
    count: int, window: int, batch: int = 4, *, start: int = 0, mosaic: bool = True, **options
) -> list[SampleKey]:
    batches = EpochBatchSampler(count, batch, (64, 64), seed=3, shuffle=True, window=window, **options)
    batches.set_epoch(2, start, mosaic=mosaic)
    return list(chain.from_iterable(batches))


@given(st.integers(1, 90), st.integers(4, 20), st.integers(1, 12), st.integers(1, 4))
def test_windows_depend_on_the_order_only(count: int, window: int, batch: int, ranks: int) -> None:
    keys = keys_of(count, window)
    windows = list(dict.fromkeys(key.window for key in keys))
    if count < 2 * window:
        assert windows == [()]  # all images
    else:
        assert list(chain.from_iterable(windows)) == [key.index for key in keys]
        assert all(window <= len(images) < 2 * window for images in windows)
        assert all(key.index in key.window for key in keys)
    of_image = {key.index: key.window for key in keys}
    for rank in range(ranks):
        for key in keys_of(count, window, batch, rank=rank, world_size=ranks):
            assert key.window == of_image[key.index]
    assert keys_of(count, window, batch, start=1) == keys[batch:]


def test_without_mosaic_or_with_all_images_there_are_no_windows() -> None:
    for options in ({"window": 4, "mosaic": False}, {"window": 0}):
        assert {key.window for key in keys_of(40, **options)} == {()}


def test_weighted_images_have_windows_of_the_drawn_order() -> None:
    keys = keys_of(12, 4, weights=np.eye(12)[5])
    assert {key.window for key in keys} == {(5, 5, 5, 5)}


def test_windows_of_a_large_block_take_turns() -> None:
    keys = keys_of(1500, 512)
    assert {len(set(key.window)) for key in keys[:512]} == {64}
    for start in range(0, 512, 8):
        windows = [key.window for key in keys[start : start + 8]]
        assert len(set(chain.from_iterable(windows))) == 512
        assert windows == [key.window for key in keys[:8]]
    for ranks in (2, 4, 8):
        own = keys_of(1500, 512, 16, rank=1, world_size=ranks)[: 512 // ranks]
        assert {i for key in own for i in key.window} == {key.index for key in own}


@pytest.fixture
def index(make_images) -> LabelIndex:
    return build_index(make_images(SIZES), 3, strict=False, cache_dir=None, workers=0, progress=None)


def training(index: LabelIndex, **changes):
    options = {"img": (64, 64), "batch": 3, "hyp": HYP, "seed": 5, "workers": 0, **changes}
    return train_loader(index, **options)


def images_of(batches: list[Batch]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Pixels and targets of each sample."""
    return {
        i: (batch.images[slot], batch.targets[batch.targets[:, 0] == slot][:, 1:])
        for batch in batches
        for slot, i in enumerate(batch.indices)
    }


def same(a: dict[int, tuple[torch.Tensor, ...]], b: dict[int, tuple[torch.Tensor, ...]]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, y) for i in a for x, y in zip(a[i], b[i], strict=True))


@pytest.mark.parametrize("changes", [{}, {"tile": 32}, {"cache": "ram"}], ids=str)
def test_a_sample_is_the_same_for_every_way_of_loading(
    changes: dict, index: LabelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images_of(list(training(index, **changes)))
    assert len(expected) == len(SIZES)
    for ways in ({"batch": 1}, {"batch": 8}, {"workers": 2}, {"workers": 1, "batch": 2}):
        assert same(images_of(list(training(index, **changes, **ways))), expected)
    shares = [images_of(list(training(index, **changes, rank=rank, world_size=2))) for rank in range(2)]
    assert same(shares[0] | shares[1], expected)
    loader = training(index, **changes, workers=1)
    loader.set_epoch(0, 2)
    assert same(images_of(list(loader)), {i: expected[i] for batch in list(training(index))[2:] for i in batch.indices})
    for limit in (0, 100_000):  # of no image, of a few
        monkeypatch.setattr(decoded_images, "_LIMIT", limit)
        for workers in (0, 2):
            assert same(images_of(list(training(index, **changes, workers=workers))), expected)


@pytest.mark.parametrize("changes", [{}, {"degrees": 10.0}, {"shear": 5.0}, {"perspective": 0.001}], ids=str)
def test_an_image_that_another_process_overwrites_is_drawn_as_if_once(
    changes: dict, index: LabelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyp = replace(HYP, **changes)
    expected = images_of(list(training(index, hyp=hyp)))

    def twice(self: DecodedImages, i: int, decode, use) -> None:
        use(255 - decode())
        use(decode())

    monkeypatch.setattr(DecodedImages, "use", twice)
    assert same(images_of(list(training(index, hyp=hyp))), expected)


def test_each_image_is_decoded_once(index: LabelIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[str] = Counter()
    real = samples.decode_image

    def watched(data, path, min_size=None):
        decoded[str(path)] += 1
        return real(data, path, min_size)

    monkeypatch.setattr(samples, "decode_image", watched)
    list(training(index, batch=4))
    assert max(decoded.values()) == 1
    list(training(index, batch=4, hyp=replace(HYP, mosaic_window=0)))
    assert max(decoded.values()) == 2
    decoded.clear()
    monkeypatch.setattr(decoded_images, "_LIMIT", 0)
    list(training(index, batch=4))
    assert max(decoded.values()) > 2


def test_a_mosaic_has_four_different_images(index: LabelIndex) -> None:
    loader = training(index, batch=1)
    dataset = loader.dataset
    for (key,) in loader.batches:
        drawn = dataset._mosaic_images(np.random.default_rng(key.index), key, key.index)
        assert drawn[0] == key.index
        assert len(set(drawn)) == 4
        assert set(drawn) <= set(key.window)


def test_full_variety_uses_images_of_other_windows(index: LabelIndex) -> None:
    windowed, all_images = (
        images_of(list(training(index, hyp=replace(HYP, mosaic_window=window)))) for window in (4, 0)
    )
    assert not same(windowed, all_images)


def test_a_window_has_room_for_a_mosaic() -> None:
    with pytest.raises(UserError, match="mosaic_window must be 0 or at least 4, not 3"):
        Hyperparameters(mosaic_window=3)
