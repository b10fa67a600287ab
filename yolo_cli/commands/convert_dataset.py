"""`yolo convert --to`: write a dataset in another format, with its images linked or copied."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_cli.config import ConvertConfig
from yolo_cli.dataset.entries import SplitEntry
from yolo_cli.dataset.formats import coco, voc, yolo
from yolo_cli.dataset.formats.records import Record
from yolo_cli.dataset.ignore_regions import ANY_CLASS, classes_of, crowd_code
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.spec import load_spec, prepare
from yolo_cli.dataset.splits import Split, index_split, load_splits, prepare_dataset
from yolo_cli.device import default_workers
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.progress import Reporter, Silent
from yolo_cli.run.folder import write_json

TOLERANCE = 1e-7  # of the image; coordinates of almost 0 have more digits than pixels can hold


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the labels of a split; images go to the folder `images`/SPLIT."""

    images: str
    write: Callable[[Sequence[Record], str, Sequence[str], Path], SplitEntry]


WRITERS: Mapping[str, Writer] = {
    "yolo": Writer(yolo.IMAGES, yolo.write),
    "coco": Writer(coco.IMAGES, coco.write),
    "voc": Writer(voc.IMAGES, voc.write),
}


def convert_dataset(config: ConvertConfig, reporter: Reporter) -> Path:
    """Write the dataset `config.source` in the format `config.to` to a new folder, which is read back to verify it.

    Raises UserError where the folder exists, or where the format cannot hold the dataset.
    """
    # Set up
    target = Path(os.path.abspath(os.path.expanduser(config.target)))
    if os.path.lexists(target):
        raise UserError("exists already", where=target, fix="name another folder, or remove it first")
    if not target.parent.is_dir():
        raise UserError("no such folder", where=target.parent, fix="make it first")
    spec = prepare_dataset(config.source, reporter, "IN")
    splits = load_splits(spec, reporter, workers=default_workers(-1, 8))

    # Convert
    with atomic_folder(target, fix="name another folder") as folder:
        folder.mkdir()
        keys: dict[str, Any] = {}
        for split in splits:
            keys[split.name] = _write_split(split, config, spec.names, folder, reporter).to_value()
        write_mapping(folder / "data.yaml", {**keys, "names": list(spec.names)})
        write_json(folder / "dataset_report.json", {split.name: split.report() for split in splits})
        difference = max(_verify(split, folder, config.to, spec.nc) for split in splits)

    # Report
    boxes = sum(len(split.index.boxes) for split in splits)
    exactly = f"to {difference:.0e} of the image" if difference else "to the last bit"
    reporter.info(f"read back: the same {boxes:,} boxes, {exactly}")
    reporter.info(f"wrote {target / 'data.yaml'}")
    return target


def _write_split(
    split: Split, config: ConvertConfig, names: Sequence[str], folder: Path, reporter: Reporter
) -> SplitEntry:
    writer, index = WRITERS[config.to], split.index
    paths = _relative_paths(index)
    records = [_record(index, i, path) for i, path in enumerate(paths)]
    if config.to != "coco":
        _check_stems(records, config.to)
    if index.ignored and config.to == "yolo" and (crowds := int((index.ignored.classes != ANY_CLASS).sum())):
        regions = f"{crowds:,} ignore region{'s' if crowds > 1 else ''} of one class"
        reporter.warn(f"{split.name}: {regions} become regions for all classes, since txt labels have no others")
    with reporter.bar(len(index), f"{split.name} images") as bar:
        for i, path in enumerate(paths):
            _place_image(index, i, folder / writer.images / split.name / path, copy=config.copy)
            bar.advance()
    return writer.write(records, split.name, names, folder)


def _record(index: LabelIndex, i: int, path: str) -> Record:
    rows = slice(index.offsets[i], index.offsets[i + 1])
    classes, boxes = index.classes[rows], index.boxes[rows]
    if index.ignored:
        classes = np.concatenate([classes, index.ignored.codes(i)])
        boxes = np.concatenate([boxes, index.ignored_rows(i)[:, 1:]])
    return Record(path, (int(index.sizes[i, 0]), int(index.sizes[i, 1])), classes, boxes)


def _relative_paths(index: LabelIndex) -> list[str]:
    """The images' paths below the folder that contains them all, with `/`."""
    paths = [os.fspath(index.path(i)) for i in range(len(index))]
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, base).replace(os.sep, "/") for path in paths]


def _check_stems(records: Sequence[Record], to: str) -> None:
    """Raises UserError for two images that would share a label file, unless their labels are the same."""
    by_stem: dict[str, Record] = {}
    for record in records:
        other = by_stem.setdefault(os.path.splitext(record.name)[0], record)
        if other is record:
            continue
        if other.classes.tolist() != record.classes.tolist() or other.boxes.tolist() != record.boxes.tolist():
            what = f"{other.name} and {record.name} would share a label file, and their boxes differ"
            raise UserError(what, where=f"--to {to}", fix="rename one of them, or use --to coco")


def _place_image(index: LabelIndex, i: int, path: Path, *, copy: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = index.path(i)
    if index.file(i) != source:  # in a shard
        path.write_bytes(index.content(i))
        return
    if not copy:
        try:
            path.symlink_to(os.path.abspath(source))
        except (OSError, NotImplementedError):  # a file system, or a user, without links
            copy = True
    if copy:
        shutil.copyfile(source, path)


def _verify(split: Split, folder: Path, to: str, nc: int) -> float:
    """The largest difference between the written boxes and those of the dataset, as a fraction of the image.

    Raises UserError where images, classes, ignore regions or the number of boxes differ, or a box has moved visibly.
    """
    index, expected = _read_back(folder, split.name), split.index
    if index.fingerprint == expected.fingerprint:
        return 0.0
    if _relative_paths(index) == _relative_paths(expected) and np.array_equal(index.offsets, expected.offsets):
        difference = float(np.abs(index.boxes - expected.boxes).max(initial=0.0))
        same = np.array_equal(index.classes, expected.classes) and difference <= TOLERANCE
        if same and all(_same_regions(index, expected, i, to, nc) for i in range(len(index))):
            return difference
    first = f", first: {index.problems[0].what}" if index.problems else ""
    what = f"cannot hold the {split.name} split: {len(index.boxes):,} of {len(expected.boxes):,} boxes read back{first}"
    raise UserError(what, where=f"--to {to}", fix="use another format")


def _same_regions(index: LabelIndex, expected: LabelIndex, i: int, to: str, nc: int) -> bool:
    """Whether image i has the regions of the dataset, as far as the format can hold them."""
    wanted = set()
    for class_id, *box in expected.ignored_rows(i).tolist():
        code = ANY_CLASS if to == "yolo" or class_id < 0 else crowd_code(int(class_id))
        for each in [ANY_CLASS] if to == "yolo" else classes_of(code, nc):
            wanted.add((float(each), *box))
    rows = np.array(sorted(wanted)).reshape(-1, 5)
    found = np.array(sorted(map(tuple, index.ignored_rows(i).tolist()))).reshape(-1, 5)
    return rows.shape == found.shape and bool(np.allclose(rows, found, rtol=0, atol=TOLERANCE))


def _read_back(folder: Path, split: str) -> LabelIndex:
    spec = prepare(load_spec(str(folder / "data.yaml")), Silent())
    return index_split(spec, split, strict=False, workers=0, reporter=Silent(), cached=False).index
