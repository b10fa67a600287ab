"""One dataset in every format is the same dataset."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.dataset.formats.conftest import NAMES, Drawn
from tests.dataset.formats.drawn_files import WRITERS
from tests.recording import Recording
from yolo_cli.config import Hyperparameters
from yolo_cli.dataset.loader import train_loader
from yolo_cli.dataset.splits import Split, load_split, prepare_dataset
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter, Silent


def opened(data: str, reporter: Reporter | None = None, split: str = "train") -> Split:
    said = reporter or Silent()
    spec = prepare_dataset(data, said)
    return load_split(spec, split, single_cls=False, strict=False, workers=0, reporter=said)


@pytest.mark.parametrize("names", [list(NAMES), None], ids=["names given", "names of the annotations"])
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "yolo"])
def test_batches_are_the_same_bits_as_with_txt_labels(
    kind: str, names: list[str] | None, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    expected = opened(data_yaml(train=WRITERS["yolo"](drawn, tmp_path / "set"), names=list(NAMES))).index
    (tmp_path / "set/labels").rename(tmp_path / "unused")
    entry = WRITERS[kind](drawn, tmp_path / "set")
    given = {"names": names} if names else {}
    index = opened(data_yaml(train=entry, **given)).index
    if names or kind in ("coco", "cvat"):  # the other formats do not declare an order: names are sorted
        assert index.fingerprint == expected.fingerprint
        options = {"img": (64, 64), "batch": 4, "hyp": Hyperparameters(), "seed": 1, "workers": 0, "stride": 32}
        for a, b in zip(train_loader(index, **options), train_loader(expected, **options), strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.targets, b.targets)
    else:
        assert len(index.boxes) == len(expected.boxes)
        assert prepare_dataset(data_yaml(train=entry), Silent()).names == tuple(sorted(NAMES))


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_written_to_the_users_folder(
    kind: str, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    data = data_yaml(train=WRITERS[kind](drawn, tmp_path / "set"), names=list(NAMES))
    before = sorted(file.relative_to(tmp_path) for file in (tmp_path / "set").rglob("*"))
    first, second = opened(data), opened(data)
    assert first.index.fingerprint == second.index.fingerprint
    assert sorted(file.relative_to(tmp_path) for file in (tmp_path / "set").rglob("*")) == before


def test_an_edited_annotation_is_read_anew(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    data = data_yaml(train=WRITERS["coco"](drawn, tmp_path / "set"))
    before = opened(data)
    file = tmp_path / "set/annotations/instances_train.json"
    document = json.loads(file.read_text())
    document["annotations"].pop()
    file.write_text(json.dumps(document))
    assert len(opened(data).index.boxes) == len(before.index.boxes) - 1


def test_two_formats_in_one_split_are_joined_in_the_order_of_the_paths(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    expected = opened(data_yaml(train=WRITERS["yolo"](drawn, tmp_path / "set"), names=list(NAMES))).index
    (tmp_path / "set/labels").rename(tmp_path / "unused")
    entries = [WRITERS["coco"](drawn[::2], tmp_path / "set"), WRITERS["voc"](drawn[1::2], tmp_path / "set")]
    index = opened(data_yaml(train=entries, names=list(NAMES))).index
    assert index.fingerprint == expected.fingerprint


def test_an_image_with_two_annotations_is_reported(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    entries = [WRITERS["coco"](drawn, tmp_path / "set"), WRITERS["voc"](drawn[:2], tmp_path / "set")]
    index = opened(data_yaml(train=entries, names=list(NAMES))).index
    assert len(index) == len(drawn)
    twice = [problem.file for problem in index.problems if "is in the split twice" in problem.what]
    assert twice == sorted(str(image.file) for image in drawn[:2])


def test_a_list_selects_images(drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path) -> None:
    """As VOC's ImageSets do: names without suffix, with a flag for the class of the list."""
    entry = WRITERS["voc"](drawn, tmp_path / "set")
    assert isinstance(entry, dict)
    lines = [drawn[0].file.stem, f"{drawn[3].file.stem} -1", "absent"]
    (tmp_path / "set/val.txt").write_text("\n".join(lines))
    index = opened(data_yaml(train={**entry, "list": "val.txt"}, names=list(NAMES))).index
    assert [index.path(i) for i in range(len(index))] == [drawn[0].file, drawn[3].file]
    assert [(problem.file, problem.what) for problem in index.problems] == [
        ("absent", "is in the list, but has no annotation")
    ]


def test_txt_labels_take_precedence_over_annotations_beside_the_images(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    data = data_yaml(train=WRITERS["yolo"](drawn, tmp_path / "set"), names=list(NAMES))
    expected = opened(data).index.fingerprint
    WRITERS["voc"](drawn[:2], tmp_path / "set")
    for file in (tmp_path / "set/Annotations").iterdir():
        file.rename(drawn[0].file.parent / file.name)
    reporter = Recording()
    assert opened(data, reporter).index.fingerprint == expected
    (line,) = [line for line in reporter.lines if "2 annotation files are not read" in line]
    assert "to use both, list each folder" in line


def test_numbers_in_txt_files_beside_names_in_annotations_need_names(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    train, val = WRITERS["yolo"](drawn, tmp_path / "set"), WRITERS["voc"](drawn, tmp_path / "set")
    with pytest.raises(UserError, match="has numbers, and nothing says what they mean; add `names"):
        opened(data_yaml(train=train, val=val))
    (tmp_path / "set/classes.txt").write_text("\n".join(NAMES))
    data = data_yaml(train=train, val=val)
    assert opened(data).index.fingerprint == opened(data, split="val").index.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "bird"], "is not among the names of data.yaml (cat, bird)"),
        (["cat", "Small Dog", "bird"], "write it as in the annotations: 'small dog' instead of 'Small Dog'"),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "yolo"])
def test_names_that_contradict_the_annotations_are_an_error(
    kind: str, names: list[str], message: str, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    data = data_yaml(train=WRITERS[kind](drawn, tmp_path / "set"), names=names)
    with pytest.raises(UserError, match=r"box(es)?, the first in ") as error:
        opened(data)
    assert message in str(error.value)


def test_another_order_of_names_is_that_of_data_yaml(
    drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    entry = WRITERS["coco"](drawn, tmp_path / "set")
    given, turned = (opened(data_yaml(train=entry, names=names)).index for names in (list(NAMES), list(NAMES)[::-1]))
    assert (turned.classes == 2 - given.classes).all()


@pytest.mark.parametrize("keys", [{"nc": 2}, {"nc": 4}])
def test_nc_must_fit_the_annotations(
    keys: dict, drawn: list[Drawn], data_yaml: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"nc is {keys['nc']}, but the annotations have 3 classes"):
        opened(data_yaml(train=WRITERS["coco"](drawn, tmp_path / "set"), **keys))
