"""data.yaml: the images of each split and the class names."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_cli.dataset import synthetic
from yolo_cli.dataset.annotated_index import AnnotationSource, build_annotated_index
from yolo_cli.dataset.class_names import MAX_CLASSES, NAMES_FILES, parse_names, read_names
from yolo_cli.dataset.darknet_data import KEYS, read_darknet_data
from yolo_cli.dataset.darknet_data import SUFFIX as DARKNET_SUFFIX
from yolo_cli.dataset.download import fetch_archive
from yolo_cli.dataset.entries import SplitEntry, locate, parse_entries
from yolo_cli.dataset.formats.formats import SUFFIXES as ANNOTATION_SUFFIXES
from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.dataset.near_misses import suggest_annotations, suggest_images
from yolo_cli.dataset.scan import label_path
from yolo_cli.dataset.shards.urls import SHARD, is_url
from yolo_cli.dataset.sources import EntryFiles, entry_files
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.cache_dir import user_cache_folder
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter

SPLITS = ("train", "val", "test")

# Datasets that a YAML may name in `generate`. A table, so that no file can name code to run.
GENERATORS: Mapping[str, Callable[[Path], None]] = {"shapes": synthetic.generate}


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A checked data.yaml. `splits` maps "train", "val", "test" to entries, whose paths are relative to `root`.

    `names` are empty until `prepare` if the file states none: annotation files may do so.
    """

    source: Path
    path: str  # as written in the YAML
    root: Path
    splits: Mapping[str, tuple[SplitEntry, ...]]
    names: tuple[str, ...]
    nc_stated: int = 0
    download: str = ""
    sha256: str = ""
    generate: str = ""
    val_fallback: str = ""
    names_are_numbers: bool = False  # class0, class1, … of images whose names nothing states

    @property
    def nc(self) -> int:
        """The number of classes."""
        return len(self.names)

    @property
    def val_is_fallback(self) -> bool:
        """Whether the validation split is another split, because its own images are missing."""
        return bool(self.val_fallback) and self.splits.get("val") == self.splits[self.val_fallback]


def load_spec(data: str, option: str = "--data") -> DataSpec:
    """Read `--data`, or another `option`: a path, or the name of a shipped file.

    The images need not exist yet (see `prepare`).

    Raises UserError, naming file and key, for invalid content.
    """
    source = assets.find("data", data, option=option)
    if source.suffix.lower() in ANNOTATION_SUFFIXES:
        raise UserError(
            "is an annotation file, not a dataset",
            where=f"{option} {source}",
            fix=f"write a data.yaml with `train: {source.name}` and `val: …`, or start with `yolo split {source}`",
        )
    raw = _darknet_mapping(source) if source.suffix == DARKNET_SUFFIX else read_mapping(source)
    splits = {name: parse_entries(raw[name], name, source) for name in SPLITS if raw.get(name) not in (None, "", [])}
    if not splits:
        raise UserError(
            "no train, val or test", where=source, fix="add lines such as `train: images/train` and `val: images/val`"
        )
    generate = _text(raw, "generate", source)
    if generate and generate not in GENERATORS:
        raise UserError(f"generate: {generate!r} is not one of {', '.join(GENERATORS)}", where=source)
    fallback = _text(raw, "val_fallback", source)
    if fallback and fallback not in splits:
        raise UserError(f"val_fallback: {fallback!r} is not a split of this file", where=source)
    spec = DataSpec(
        source=source,
        path=_text(raw, "path", source),
        root=Path(),
        splits=splits,
        names=parse_names(raw, source),
        nc_stated=raw.get("nc") or 0,
        download=_url(_text(raw, "download", source), source),
        sha256=_sha256(_text(raw, "sha256", source), source),
        generate=generate,
        val_fallback=fallback,
    )
    return replace(spec, root=_root(spec))


def _darknet_mapping(source: Path) -> dict[str, Any]:
    """A .data file as the mapping that a data.yaml would have."""
    keys = read_darknet_data(source)
    splits = {split: keys[key] for split, key in KEYS.items() if keys.get(key)}
    return {**splits, **({"names": list(read_names(Path(keys["names"])))} if keys.get("names") else {})}


def prepare(spec: DataSpec, reporter: Reporter) -> DataSpec:
    """Make the images available: generate or download them if they are missing, after reporting the source.

    Class names that the YAML does not state are taken from the annotation files. Raises UserError where one of these
    fails. Nothing in the YAML is ever executed.
    """
    if not _is_available(spec):
        if spec.generate:
            with atomic_folder(spec.root) as complete:
                GENERATORS[spec.generate](complete)
        elif spec.download:
            fetch_archive(
                spec.download, spec.sha256, spec.root, holds=_first_path(spec), reporter=reporter, source=spec.source
            )
        if not _is_available(spec):
            raise UserError(
                f"no {_first_path(spec)} in {' or '.join(map(str, _roots(spec)))}",
                where=spec.source,
                fix=_suggestion(spec, next(iter(spec.splits)), _first_path(spec))
                or "correct `path`, or set YOLO_DATASETS to the folder that contains your datasets",
            )
    spec = _with_fallback(spec, reporter.info)
    if spec.names:
        return spec
    names = _find_names(spec, reporter)
    if not names:
        for split in spec.splits:
            split_entries(spec, split)  # a path that does not exist is the better message
        annotations = suggest_annotations(spec.root, next(iter(spec.splits)))
        fix = "add `names: [first class, second class]`" + (f"; {annotations}" if annotations else "")
        raise UserError("no names", where=spec.source, fix=fix)
    return replace(spec, names=names)


def images_spec(source: Path, reporter: Reporter) -> DataSpec:
    """A dataset of one split, `train`, with the images in a folder or a txt list. Raises UserError."""
    path = Path(os.path.abspath(source))
    root = path if path.is_dir() else path.parent
    spec = DataSpec(source=path, path="", root=root, splits={"train": (SplitEntry(str(path)),)}, names=())
    if not path.exists():
        raise UserError("no such file or folder", where=source)
    if names := _find_names(spec, reporter):
        return replace(spec, names=names)
    return replace(spec, names=tuple(f"class{i}" for i in range(MAX_CLASSES)), names_are_numbers=True)


def split_entries(spec: DataSpec, split: str) -> list[EntryFiles]:
    """The files of each entry of a split.

    Folders are searched recursively, following links. Hidden files are ignored, and so are shards where there are
    images. A folder that cannot be read is listed as an image, for `build_index` to report.
    Raises UserError for a split that is not in the YAML, an entry that does not exist, and a split without images.
    """
    if split not in spec.splits:
        raise UserError(f"has no `{split}` split", where=spec.source, fix=f"add `{split}: …`, or choose another split")
    found = []
    for entry in spec.splits[split]:
        if missing := next((path for path in entry.paths() if not _exists(spec.root, path)), ""):
            raise UserError(
                f"{split}: {missing} is not in {spec.root}",
                where=spec.source,
                fix=_suggestion(spec, split, missing)
                or "correct the path, or set YOLO_DATASETS to the folder that contains your datasets",
            )
        if is_url(entry.path):
            found.append(EntryFiles((entry.path,)))
        else:
            found.append(entry_files(entry, spec.root, split, spec.source))
    if not any(files.images or files.annotated for files in found):
        raise UserError(
            f"{split}: no images in {', '.join(map(str, spec.splits[split]))}",
            where=spec.source,
            fix=suggest_images(spec.root, split, spec.splits[split][0].path)
            or f"image files end in {', '.join(sorted(SUFFIXES))}, tar shards in {SHARD}",
        )
    return found


def _suggestion(spec: DataSpec, split: str, missing: str) -> str:
    """What there is instead of a missing path of a split."""
    if any(missing == entry.listed for entry in spec.splits[split]):
        return ""
    images = [entry.path for entry in spec.splits[split]]
    if missing not in images or os.path.splitext(missing)[1].lower() in ANNOTATION_SUFFIXES:
        return suggest_annotations(spec.root, split)
    return suggest_images(spec.root, split, missing)


def split_files(spec: DataSpec, split: str) -> list[str]:
    """The image files with txt labels of a split, and tar shards, sorted, each once. Raises UserError."""
    return sorted({file for files in split_entries(spec, split) for file in files.images})


def _find_names(spec: DataSpec, reporter: Reporter) -> tuple[str, ...]:
    """The class names in the annotation files, or in a file of names beside images or labels.

    Classes that annotation files declare keep their order; those that merely occur are sorted. Empty where nothing
    states names or `nc`.
    """
    declared: list[str] = []
    occurring: set[str] = set()
    for source in _annotation_sources(spec):
        annotated = build_annotated_index(source, cache_dir=user_cache_folder(), reporter=reporter)
        if annotated.declared:
            declared += [name for name in annotated.names if name not in declared]
        else:
            occurring.update(annotated.names)
    names = (*declared, *sorted(occurring.difference(declared)))
    if names and (numbered := _numbered_label(spec)):
        names = _names_file(spec)
        if not names:
            raise UserError(
                f"some annotations name their classes, but {numbered} has numbers, and nothing says what they mean",
                where=spec.source,
                fix="add `names: [class 0, class 1, …]`",
            )
    if not names:
        names = _names_file(spec) or tuple(f"class{i}" for i in range(spec.nc_stated))
    if spec.nc_stated and spec.nc_stated != len(names):
        what = f"nc is {spec.nc_stated}, but the annotations have {len(names)} classes"
        raise UserError(what, where=spec.source, fix="leave nc out")
    return names


def _numbered_label(spec: DataSpec) -> str:
    """A txt label file of a dataset that has rows; empty without any."""
    labels = (label_path(file) for split in _available_splits(spec) for file in split_files(spec, split))
    return next((label for label in labels if os.path.exists(label) and os.path.getsize(label)), "")


def _available_splits(spec: DataSpec) -> list[str]:
    return [split for split in spec.splits if all(_exists(spec.root, p) for e in spec.splits[split] for p in e.paths())]


def _annotation_sources(spec: DataSpec) -> list[AnnotationSource]:
    found = [files.annotated for split in _available_splits(spec) for files in split_entries(spec, split)]
    return list(dict.fromkeys(source for source in found if source is not None))


def _names_file(spec: DataSpec) -> tuple[str, ...]:
    """The names in a classes.txt or the like, in the dataset's folder or one of an entry."""
    folders = [spec.root]
    for entries in spec.splits.values():
        for entry in entries:
            path = locate(spec.root, entry.path)
            if path is not None and path.suffix == DARKNET_SUFFIX and "names" in (keys := read_darknet_data(path)):
                return read_names(Path(keys["names"]))
            folders += [path, path.parent] if path is not None else []
    for folder in folders:
        for name in NAMES_FILES:
            if (folder / name).is_file():
                return read_names(folder / name)
    return ()


def _text(raw: Mapping[str, Any], key: str, source: Path) -> str:
    value = raw.get(key)
    if value is None or value is False:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{key}: text is expected, not {value!r}", where=source)
    return value.strip()


def _url(download: str, source: Path) -> str:
    if download and not re.fullmatch(r"https?://[^\s;|`$<>\"'\\]+", download):
        raise UserError(
            "download: the http(s) URL of one archive is expected; scripts and commands are never executed",
            where=source,
            fix="give the URL of an archive, or download the dataset yourself and remove `download`",
        )
    return download


def _sha256(digest: str, source: Path) -> str:
    if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UserError("sha256: 64 hexadecimal digits are expected", where=source)
    return digest.lower()


def _search_folders(source: Path) -> list[Path]:
    """The folders in which relative paths are looked up, in order."""
    shared = os.environ.get("YOLO_DATASETS")
    folders = [source.absolute().parent, *([Path(os.path.expanduser(shared))] if shared else []), Path.cwd()]
    return [Path(os.path.abspath(folder)) for folder in folders]


def _cached_root(spec: DataSpec) -> Path:
    """The cache folder of a generated or downloaded dataset."""
    name = re.sub(r"[^\w.-]", "_", spec.generate or spec.source.stem)
    if spec.generate:
        return user_cache_folder() / "datasets" / f"{name}-v{synthetic.VERSION}"
    # The URL is part of the name, so that different archives never share a folder.
    url = re.sub(r"\W+", "-", spec.download.split("://", 1)[-1])[-40:].strip("-")
    return user_cache_folder() / "datasets" / f"{name}-{url}"


def _roots(spec: DataSpec) -> list[Path]:
    """The possible root folders of the dataset, in order of preference."""
    if spec.generate:
        return [_cached_root(spec)]
    roots = [Path(os.path.abspath(base / os.path.expanduser(spec.path))) for base in _search_folders(spec.source)]
    return list(dict.fromkeys([*roots, *([_cached_root(spec)] if spec.download else [])]))


def _root(spec: DataSpec) -> Path:
    """The root folder that contains the first split, else the one where the dataset is expected."""
    roots = _roots(spec)
    for root in roots:
        if _exists(root, _first_path(spec)):
            return root
    return roots[-1] if spec.download else next((root for root in roots if os.path.isdir(root)), roots[0])


def _first_path(spec: DataSpec) -> str:
    """The first path of the file, which shows where the dataset is; a URL where it has nothing else."""
    paths = [entry.path for entries in spec.splits.values() for entry in entries]
    return next((path for path in paths if not is_url(path)), paths[0])


def _exists(root: Path, path: str) -> bool:
    """Whether a path of the file exists. A URL is not visited for that."""
    return is_url(path) or locate(root, path) is not None


def _is_available(spec: DataSpec) -> bool:
    return _exists(spec.root, _first_path(spec))


def _with_fallback(spec: DataSpec, report: Callable[[str], None]) -> DataSpec:
    """Use `val_fallback` where the validation split is missing, and report it."""
    if not spec.val_fallback or all(_exists(spec.root, entry.path) for entry in spec.splits.get("val", ())):
        return spec
    report(
        f"{spec.root} has no {', '.join(map(str, spec.splits['val']))}: "
        f"val is the {spec.val_fallback} split, so its metrics are those of training images"
    )
    return replace(spec, splits={**spec.splits, "val": spec.splits[spec.val_fallback]})
