"""Datasets in tar shards behave like datasets in folders."""

import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from yolo_cli.batch import Batch
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.label_index import LabelIndex, build_index
from yolo_cli.dataset.loader import train_loader, val_loader
from yolo_cli.dataset.pixel_cache import build_pixel_cache
from yolo_cli.dataset.spec import load_spec, split_files
from yolo_cli.errors import UserError

SIZES = [(60, 80), (80, 60), (64, 64), (40, 90), (90, 40), (120, 160), (50, 60)]
LABELS = [f"{i % 3} 0.5 0.5 0.4 0.{i + 1}\n1 0.25 0.25 0.2 0.2\n" for i in range(6)] + [None]


def pack(shard: Path, files: list[tuple[str, Path]]) -> Path:
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, "w") as tar:
        for name, file in files:
            tar.add(file, name)
    return shard


def beside(image: Path) -> list[tuple[str, Path]]:
    """An image and its label file, if there is one, side by side."""
    label = image.parent.parent / "labels" / f"{image.stem}.txt"
    return [(image.name, image), *([(label.name, label)] if label.exists() else [])]


def index_of(files: list[Path], **changes) -> LabelIndex:
    options = {"strict": False, "cache_dir": None, "workers": 0, "progress": None, **changes}
    return build_index(files, 3, **options)


@pytest.fixture
def images(make_images) -> list[Path]:
    return make_images(SIZES, LABELS)


@pytest.fixture
def shards(images: list[Path], tmp_path: Path) -> list[Path]:
    parts = {"a": images[:3], "b": images[3:]}
    return [pack(tmp_path / f"{n}.tar", [m for i in reversed(part) for m in beside(i)]) for n, part in parts.items()]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.indices == y.indices and torch.equal(x.images, y.images) and torch.equal(x.targets, y.targets)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("options", [{}, {"rect": True}, {"cache": "ram"}, {"cache": "disk"}], ids=str)
def test_training_batches_equal_those_of_the_folder(options: dict, workers: int, images, shards) -> None:
    batches = []
    for files in (images, shards):
        loader = train_loader(
            index_of(files), img=(64, 64), batch=3, hyp=Hyperparameters(), seed=5, workers=workers, **options
        )
        loader.set_epoch(1, 1)
        batches.append(list(loader))
    assert len(batches[0]) == 2
    assert same(*batches)


def test_validation_batches_equal_those_of_the_folder(images, shards) -> None:
    assert same(*(list(val_loader(index_of(files), img=(64, 64), batch=4)) for files in (images, shards)))


def test_paths_contain_the_shard_and_the_name_in_it(images, shards, tmp_path: Path) -> None:
    index = index_of([*shards, images[0]])
    assert index.path(0) == tmp_path / "a.tar" / "000.jpg"
    assert index.file(0) == tmp_path / "a.tar"
    assert index.path(7) == index.file(7) == images[0]
    assert index.content(0) == index.content(7) == images[0].read_bytes()
    assert not len(index.labels(6)), "the last has no label file"
    assert not index.problems


def test_folders_in_a_shard(images, tmp_path: Path) -> None:
    label = images[1].parent.parent / "labels/001.txt"
    files = [
        ("./images/t/1.jpg", images[1]),
        ("./labels/t/1.txt", label),
        ("../out.jpg", images[0]),
        ("images/._1.jpg", label),
        ("notes.md", label),
    ]
    index = index_of([pack(tmp_path / "images/x.tar", files)])
    assert [index.path(i) for i in range(len(index))] == [tmp_path / "images/x.tar/images/t/1.jpg"]
    assert len(index.labels(0)) == 2
    assert not index.problems


def test_of_two_files_with_one_name_the_last_is_used(images, tmp_path: Path) -> None:
    index = index_of([pack(tmp_path / "x.tar", [("a.jpg", images[0]), ("a.jpg", images[1])])])
    assert index.sizes.tolist() == [list(SIZES[1])]
    assert [str(problem) for problem in index.problems] == [
        f"{tmp_path}/x.tar/a.jpg: occurs twice in its shard; the last one is used"
    ]


def test_complete_images_of_a_truncated_shard_are_used(shards: list[Path]) -> None:
    whole = index_of(shards)
    content = shards[0].read_bytes()
    start, length = whole.spans[1, 1:].tolist()
    shards[0].write_bytes(content[: start + length // 2])
    index = index_of(shards)
    assert [index.path(i).name for i in range(len(index))] == ["002.jpg", *(f"{i:03d}.jpg" for i in range(3, 7))]
    assert "cut off" in index.problems[0].what
    with pytest.raises(UserError, match=r"a.tar.*cut off"):
        index_of(shards, strict=True)


@pytest.mark.parametrize("content", [b"", b"no archive" * 100])
def test_a_file_that_is_not_a_tar_archive_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"none of 1 images can be read.*x.tar: not a tar archive"):
        index_of([tmp_path / "x.tar"])


def test_broken_images_and_labels_in_a_shard_are_reported(images, tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(images[0].read_bytes()[:-40])
    (tmp_path / "bad").write_bytes(b"0 .5 .5 .1 .1\n9 0 0 0 0\n")
    names = [("1.jpg", tmp_path / "half"), ("2.jpg", images[0]), ("2.txt", tmp_path / "bad"), ("3.jpg", images[1])]
    index = index_of([pack(tmp_path / "x.tar", names)])
    assert [index.path(i).name for i in range(len(index))] == ["2.jpg", "3.jpg"]
    assert [(Path(problem.file).name, problem.line) for problem in index.problems] == [("1.jpg", 0), ("2.txt", 2)]
    assert "truncated JPEG" in index.problems[0].what


def test_cache_and_fingerprint_change_with_the_shard(images, shards, tmp_path: Path) -> None:
    first, again = (index_of(shards, cache_dir=tmp_path / "cache") for _ in range(2))
    assert again.fingerprint == first.fingerprint
    assert again.spans.tolist() == first.spans.tolist()
    (images[0].parent.parent / "labels/000.txt").write_text("2 0.5 0.5 0.1 0.1")
    pack(shards[0], [member for image in images[:3] for member in beside(image)])
    changed = index_of(shards, cache_dir=tmp_path / "cache")
    assert changed.labels(0)[:, 0].tolist() == [2]
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_the_error_names_a_shard_that_changed_during_a_run(damage: str, shards) -> None:
    index = index_of(shards)
    if damage == "cut":
        shards[1].write_bytes(shards[1].read_bytes()[:512])
    else:
        shards[1].unlink()
    with pytest.raises(UserError, match=r"b.tar/00.\.jpg: .*(the shard ends before it|No such file)"):
        list(val_loader(index, img=(64, 64), batch=2))


def test_disk_cache_is_rebuilt_for_a_changed_shard(images, shards, own_cache: Path) -> None:
    build_pixel_cache(index_of(shards), (64, 64), "disk", 1)
    pack(shards[0], [member for image in images[:3] for member in beside(image)])
    build_pixel_cache(index_of(shards), (64, 64), "disk", 1)
    assert len(list((own_cache / "pixels").iterdir())) == 2


@pytest.mark.parametrize("entry", ["a.tar", ["a.tar", "b.tar"], "shards", "list.txt"], ids=str)
def test_shards_in_a_yaml(entry, shards, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    expected = [tmp_path / "a.tar"] if entry == "a.tar" else shards
    if entry == "shards":
        expected = [shard.rename(folder / shard.name) for shard in shards]
    (tmp_path / "list.txt").write_text("a.tar\nb.tar\n")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": entry, "nc": 3}))
    assert split_files(load_spec(str(tmp_path / "data.yaml")), "train") == [str(shard) for shard in expected]


def test_archives_in_a_folder_of_images_are_ignored(images, shards, tmp_path: Path) -> None:
    shards[0].rename(images[0].parent / "backup.tar")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "data/images", "nc": 3}))
    assert split_files(load_spec(str(tmp_path / "data.yaml")), "train") == [str(image) for image in images]
