"""The ring of decoded images: what is used is always the right image, whatever other processes do."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from yolo_cli.dataset import decoded_images, shared_memory
from yolo_cli.dataset.decoded_images import DecodedImages, keep_decoded
from yolo_cli.dataset.shared_memory import free_memory

COUNT = 12


def picture(i: int) -> np.ndarray:
    """Image i, whose height and pixels are different for each i."""
    return np.full((100 + i, 20, 3), i, np.uint8)


class Reader:
    """Uses images of a ring, and counts how often they are decoded."""

    def __init__(self, ring: DecodedImages) -> None:
        self.ring, self.decoded = ring, 0

    def decode(self, i: int) -> np.ndarray:
        self.decoded += 1
        return picture(i)

    def use(self, i: int) -> list[np.ndarray]:
        """Copies of what one use of image i was called with; the last one counts."""
        given: list[np.ndarray] = []
        self.ring.use(i, lambda: self.decode(i), lambda image: given.append(image.copy()))
        return given

    def right(self, i: int) -> bool:
        """Whether a use of image i ends with image i."""
        return np.array_equal(self.use(i)[-1], picture(i))


def ring(images: int, *, shared: bool = False) -> DecodedImages:
    """Room for about so many of the images."""
    return DecodedImages(COUNT, images * picture(COUNT).nbytes, shared=shared)


def test_images_are_decoded_once_while_they_have_room() -> None:
    reader = Reader(ring(COUNT))
    assert all(reader.right(i) for i in [*range(COUNT), *range(COUNT)])
    assert reader.decoded == COUNT


def test_the_oldest_image_gives_way() -> None:
    reader = Reader(ring(3))
    for i in (0, 1, 2, 3):
        assert reader.right(i)
    assert reader.right(3)
    assert reader.decoded == 4
    assert reader.right(0)
    assert reader.decoded == 5


@pytest.mark.parametrize("images", [0, 1])
def test_an_image_larger_than_half_of_the_ring_is_not_kept(images: int) -> None:
    reader = Reader(ring(images))
    assert reader.right(5)
    assert reader.right(5)
    assert reader.decoded == 2


def test_kept_images_are_read_only() -> None:
    kept = ring(3)
    kept.use(1, lambda: picture(1), lambda image: None)
    with pytest.raises(ValueError, match="read-only"):
        kept.use(1, lambda: picture(1), lambda image: image.fill(0))


def test_an_image_that_is_overwritten_while_it_is_used_is_used_again() -> None:
    reader = Reader(ring(3))
    assert reader.right(0)
    seen = []

    def interrupted(image: np.ndarray) -> None:
        seen.append(image.copy())
        if len(seen) == 1:
            assert all(reader.right(i) for i in (1, 2, 3, 4))  # as another process would, meanwhile

    reader.ring.use(0, lambda: picture(0), interrupted)
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[1], picture(0))


class Slow(np.ndarray):
    """An image whose writer is stopped before it copies the pixels, while others go on."""

    def reshape(self, *shape):
        self.meanwhile()
        return np.asarray(self).reshape(*shape)


def test_a_writer_that_was_stopped_overwrites_nothing() -> None:
    reader = Reader(ring(3))
    slow = picture(0).view(Slow)
    slow.meanwhile = lambda: [reader.use(i) for i in (1, 2, 3, 4, 5, 1, 2)]
    reader.ring.use(0, lambda: slow, lambda image: None)
    assert all(reader.right(i) for i in range(COUNT))
    before = reader.decoded
    assert reader.right(COUNT - 1)
    assert reader.decoded == before  # images are kept again


def work(kept: DecodedImages, seed: int, wrong) -> None:
    reader, random = Reader(kept), np.random.default_rng(seed)
    wrong.value += sum(not reader.right(int(i)) for i in random.integers(COUNT, size=2000))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_that_share_a_small_ring(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context(method)
    monkeypatch.setattr(decoded_images.multiprocessing, "Lock", context.Lock)
    kept = ring(4, shared=True)
    wrong = [context.Value("i", 0) for _ in range(3)]
    processes = [context.Process(target=work, args=(kept, seed, wrong[seed])) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [value.value for value in wrong] == [0, 0, 0]


def test_an_image_that_is_overwritten_while_it_is_copied_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(ring(3))
    assert reader.right(0)
    at = DecodedImages._at

    def overtaken(self: DecodedImages, *kept: int) -> np.ndarray:
        monkeypatch.setattr(DecodedImages, "_at", at)
        image = at(self, *kept)
        assert all(reader.right(i) for i in (1, 2, 3, 4))
        return image

    monkeypatch.setattr(DecodedImages, "_at", overtaken)
    np.testing.assert_array_equal(reader.ring.read(0, lambda: picture(0)), picture(0))
    np.testing.assert_array_equal(reader.ring.read(0, lambda: picture(7)), picture(0))  # from the ring


def test_a_lock_that_a_killed_process_held_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_images, "_LOCK_TIMEOUT", 0.1)
    reader = Reader(ring(COUNT))
    assert reader.right(1)
    process = multiprocessing.get_context("fork").Process(target=reader.ring._lock.acquire)
    process.start()
    process.join()
    assert reader.right(0)
    monkeypatch.setattr(decoded_images, "_LOCK_TIMEOUT", 1e6)  # it waits once, not for each image
    assert all(reader.right(i) for i in range(COUNT))
    assert reader.decoded == COUNT + 2


def test_room_is_made_for_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = np.array([[480, 640], [100, 50], [4000, 3000]], np.int32)
    options = {"mosaic": True, "shared": False}
    monkeypatch.setattr(decoded_images, "free_memory", lambda shared: 2**40)
    for fit, most in (((640, 640), 3 * (480 * 640 + 100 * 50 + 1920 * 1440 + 99_999)), (None, 3 * 12_400_000)):
        kept = keep_decoded(sizes, fit, 1.5, **options)
        assert most - 400_000 < len(kept._ring) <= most
    monkeypatch.setattr(decoded_images, "_LIMIT", 1000)
    assert len(keep_decoded(sizes, None, 1.5, **options)._ring) == 1000
    assert keep_decoded(sizes, None, 1.5, mosaic=False, shared=False) is None


def test_where_memory_is_short_there_is_no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, options = np.full((1000, 2), 640, np.int32), {"mosaic": True, "shared": True}
    monkeypatch.setattr(decoded_images, "free_memory", lambda shared: 2**26)  # of a container
    assert keep_decoded(sizes, (640, 640), 1.5, **options) is None
    monkeypatch.setattr(decoded_images, "free_memory", lambda shared: 2**31)
    alone = len(keep_decoded(sizes, (640, 640), 1.5, **options)._ring)
    assert alone < 2**30 // 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert len(keep_decoded(sizes, (640, 640), 1.5, **options)._ring) < alone / 3.9

    def full(size: int) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    assert keep_decoded(sizes, (640, 640), 1.5, **options) is None


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_CONTAINER", tmp_path)
    usual = free_memory()
    assert usual > 2**20
    for name, text in (("max", "9000000\n"), ("current", "8500000\n"), ("stat", "anon 1\ninactive_file 300000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory() == 800_000
    assert free_memory(shared=False) == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 2**20
