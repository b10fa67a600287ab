"""From the `--data` option to the label index of a split: how every command that reads a dataset starts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from yolo_cli.dataset.annotated_index import build_annotated_index, renumbered
from yolo_cli.dataset.label_index import LabelIndex, build_index, merge_indexes, require_no_problems
from yolo_cli.dataset.near_misses import explain_no_labels
from yolo_cli.dataset.shards.urls import is_shard
from yolo_cli.dataset.spec import DataSpec, load_spec, prepare, split_entries
from yolo_cli.errors import UserError
from yolo_cli.io.cache_dir import user_cache_folder
from yolo_cli.progress import Reporter


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a dataset, indexed."""

    name: str
    index: LabelIndex
    files: int  # image files found, unreadable ones included; a shard counts as one

    def summary(self) -> str:
        """One line with the numbers of images, boxes, background images and problems."""
        index = self.index
        background = int((index.offsets[1:] == index.offsets[:-1]).sum())
        rows = sum(1 for problem in index.problems if problem.line)
        files = len(index.problems) - rows
        line = f"{self.name}: {_count(len(index), 'image')}, {_count(len(index.boxes), 'box', 'boxes')}"
        line += f", {_count(len(index.ignored.classes), 'ignore region')}" if index.ignored else ""
        line += f", {background:,} background" if background else ""
        left_out = [_count(number, what) for number, what in ((files, "file"), (rows, "label row")) if number]
        return line + (f"; {' and '.join(left_out)} left out, see dataset_report.json" if left_out else "")

    def report(self) -> Mapping[str, Any]:
        """The split's entry in dataset_report.json."""
        return {
            "image_files": self.files,
            "images": len(self.index),
            "boxes": len(self.index.boxes),
            "ignore_regions": len(self.index.ignored.classes) if self.index.ignored else 0,
            "fingerprint": self.index.fingerprint,
            "problems": [asdict(problem) for problem in self.index.problems],
            "notes": list(self.index.notes),
        }


def prepare_dataset(data: str, reporter: Reporter, option: str = "--data") -> DataSpec:
    """The dataset named by `--data` or another `option`, generated or downloaded if it is missing. Raises UserError."""
    return prepare(load_spec(data, option), reporter)


def load_split(
    spec: DataSpec, split: str, *, single_cls: bool, strict: bool, workers: int, reporter: Reporter
) -> Split:
    """Index a split and report its summary. Raises UserError where it has no readable image."""
    opened = index_split(spec, split, strict=strict, workers=workers, reporter=reporter)
    if single_cls:
        opened = replace(opened, index=opened.index.single_cls())
    (reporter.warn if opened.index.problems else reporter.info)(opened.summary())
    for note in opened.index.notes:
        reporter.info(f"{split}: {note}")
    return opened


def load_splits(spec: DataSpec, reporter: Reporter, *, workers: int) -> list[Split]:
    """All splits of a dataset, each once.

    Tools export a `test` entry without any images; such a split is left out with a warning. Raises UserError where
    another split has no readable image.
    """
    splits = []
    for name in spec.splits:
        if name == "val" and spec.val_is_fallback:
            continue
        try:
            splits.append(load_split(spec, name, single_cls=False, strict=False, workers=workers, reporter=reporter))
        except UserError as error:
            if name != "test" or len(spec.splits) == 1:
                raise
            reporter.warn(f"test is left out: {error}")
    return splits


def index_split(
    spec: DataSpec,
    split: str,
    *,
    strict: bool,
    workers: int,
    reporter: Reporter,
    allow_empty: bool = False,
    cached: bool = True,
) -> Split:
    """Index a split. Raises UserError where it has no image, or none that is readable unless `allow_empty` is set.

    Without `cached` the files are read anew, and the cache stays as it is.
    """
    cache_dir = user_cache_folder() if cached else None
    entries = split_entries(spec, split)
    files = sorted({file for entry in entries for file in entry.images})
    indexes = []
    if files:
        with reporter.bar(len(files), f"{split} labels") as bar:
            done = 0

            def progress(now: int, total: int) -> None:
                nonlocal done
                for _ in range(now - done):
                    bar.advance()
                done = now

            indexes.append(
                build_index(
                    files,
                    spec.nc,
                    strict=strict,
                    cache_dir=cache_dir,
                    workers=workers,
                    progress=progress,
                    allow_empty=allow_empty,
                )
            )
    for source in dict.fromkeys(entry.annotated for entry in entries if entry.annotated):
        annotated = build_annotated_index(source, cache_dir=cache_dir, reporter=reporter)
        indexes.append(renumbered(annotated, spec.names, source.path))
    index = merge_indexes(indexes)
    if strict:
        require_no_problems(index)
    if not len(index) and not allow_empty:
        raise UserError(f"none of the images can be read, first: {index.problems[0]}", where=f"{spec.source}: {split}")
    if files and not len(index.boxes) and not index.ignored and not index.problems and not any(map(is_shard, files)):
        reporter.warn(explain_no_labels(files, spec.root, split))
    if unused := sum(entry.unused for entry in entries):
        what = f"{split}: {_count(unused, 'annotation file is', 'annotation files are')} not read"
        reporter.warn(f"{what}, because there are txt labels beside; to use both, list each folder: `[A, B]`")
    left_out = sum(1 for problem in index.problems if not problem.line)
    return Split(split, index, len(files) if len(indexes) == 1 and files else len(index) + left_out)


def class_names(spec: DataSpec, *, single_cls: bool) -> tuple[str, ...]:
    """The class names of a model trained on this dataset."""
    return ("object",) if single_cls else spec.names


def checked_image_size(img: tuple[int, int], stride: int, reporter: Reporter) -> tuple[int, int]:
    """`--img` (height, width) rounded up to multiples of the stride, with a warning where that changes it."""
    rounded = tuple(-(-side // stride) * stride for side in img)
    if rounded != img:
        reporter.warn(f"--img {_text(img)} is not a multiple of the model's stride {stride}; {_text(rounded)} is used")
    return rounded[0], rounded[1]


def _text(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else " ".join(map(str, sides))


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
