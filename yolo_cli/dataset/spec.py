"""data.yaml: the images of each split and the class names."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_cli.dataset import synthetic
from yolo_cli.dataset.download import fetch_archive
from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.dataset.scan import SHARD, is_shard
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.cache_dir import user_cache_folder
from yolo_cli.io.file_tree import files_below
from yolo_cli.io.text_file import read_lines
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Reporter

MAX_CLASSES = 100_000
SPLITS = ("train", "val", "test")

# Datasets that a YAML may name in `generate`. A table, so that no file can name code to run.
GENERATORS: Mapping[str, Callable[[Path], None]] = {"shapes": synthetic.generate}


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A checked data.yaml. `splits` maps "train", "val", "test" to folders, txt lists or images, relative to `root`."""

    source: Path
    path: str  # as written in the YAML
    root: Path
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    download: str = ""
    sha256: str = ""
    generate: str = ""
    val_fallback: str = ""

    @property
    def nc(self) -> int:
        """The number of classes."""
        return len(self.names)


def load_spec(data: str) -> DataSpec:
    """Read `--data`: a path, or the name of a shipped file. The images need not exist yet (see `prepare`).

    Raises UserError, naming file and key, for invalid content.
    """
    source = assets.find("data", data, option="--data")
    raw = read_mapping(source)
    splits = {name: _entries(raw[name], name, source) for name in SPLITS if raw.get(name) not in (None, "", [])}
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
        names=_names(raw, source),
        download=_url(_text(raw, "download", source), source),
        sha256=_sha256(_text(raw, "sha256", source), source),
        generate=generate,
        val_fallback=fallback,
    )
    return replace(spec, root=_root(spec))


def prepare(spec: DataSpec, reporter: Reporter) -> DataSpec:
    """Make the images available: generate or download them if they are missing, after reporting the source.

    Raises UserError where that fails. Nothing in the YAML is ever executed.
    """
    if _is_available(spec):
        return _with_fallback(spec, reporter.info)
    if spec.generate:
        with atomic_folder(spec.root) as complete:
            GENERATORS[spec.generate](complete)
    elif spec.download:
        fetch_archive(
            spec.download, spec.sha256, spec.root, holds=_first_entry(spec), reporter=reporter, source=spec.source
        )
    if not _is_available(spec):
        raise UserError(
            f"no {_first_entry(spec)} in {' or '.join(map(str, _roots(spec)))}",
            where=spec.source,
            fix="correct `path`, or set YOLO_DATASETS to the folder that contains your datasets",
        )
    return _with_fallback(spec, reporter.info)


def split_files(spec: DataSpec, split: str) -> list[str]:
    """The image files of a split, and tar shards of images, sorted, each once.

    Folders are searched recursively, following links. Hidden files are ignored, and so are shards where there are
    images. A folder that cannot be read is listed too, for `build_index` to report.
    Raises UserError for a split that is not in the YAML, an entry that does not exist, and a split without images.
    """
    if split not in spec.splits:
        raise UserError(f"has no `{split}` split", where=spec.source, fix=f"add `{split}: …`, or choose another split")
    found: set[str] = set()
    for entry in spec.splits[split]:
        path = _locate(spec.root, entry)
        if path is None:
            raise UserError(
                f"{split}: {entry} is not in {spec.root}",
                where=spec.source,
                fix="correct the path, or set YOLO_DATASETS to the folder that contains your datasets",
            )
        if os.path.isdir(path):
            found.update(_files_under(path))
        elif path.suffix.lower() == ".txt":
            found.update(_listed_images(path))
        else:
            found.add(os.path.abspath(path))
    if not found:
        raise UserError(
            f"{split}: no images in {', '.join(spec.splits[split])}",
            where=spec.source,
            fix=f"image files end in {', '.join(sorted(SUFFIXES))}, tar shards in {SHARD}",
        )
    return sorted(found)


def _entries(value: Any, name: str, source: Path) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry.strip() for entry in values):
        raise UserError(f"{name}: a path, or a list of paths, is expected", where=source)
    return tuple(entry.strip() for entry in values)


def _text(raw: Mapping[str, Any], key: str, source: Path) -> str:
    value = raw.get(key)
    if value is None or value is False:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{key}: text is expected, not {value!r}", where=source)
    return value.strip()


def _names(raw: Mapping[str, Any], source: Path) -> tuple[str, ...]:
    names, count = raw.get("names"), raw.get("nc")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_CLASSES):
        raise UserError(f"nc: a whole number from 1 to {MAX_CLASSES} is expected, not {count!r}", where=source)
    if names is None:
        if count is None:
            raise UserError("no names", where=source, fix="add `names: [first class, second class]`")
        return tuple(f"class{i}" for i in range(count))
    if isinstance(names, dict):
        if any(not isinstance(key, int) or isinstance(key, bool) for key in names):
            raise UserError("names: the keys must be class numbers", where=source)
        if sorted(names) != list(range(len(names))):
            missing = next(i for i in range(len(names)) if i not in names)
            raise UserError(f"names: numbers must run from 0 without a gap; {missing} is missing", where=source)
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError("names: a list, or a map from class number to name, is expected", where=source)
    if len(names) > MAX_CLASSES:
        raise UserError(f"names: {len(names)} names, but at most {MAX_CLASSES} are supported", where=source)
    if any(isinstance(name, list | dict) or name is None for name in names):
        raise UserError("names: every class needs a name", where=source)
    if flags := [name for name in names if isinstance(name, bool)]:
        what = f"names: YAML reads a bare yes, no, on or off as {str(flags[0]).lower()}"
        raise UserError(what, where=source, fix="put the name in quotes")
    if count is not None and count != len(names):
        raise UserError(f"nc is {count}, but there are {len(names)} names", where=source, fix="leave nc out")
    return tuple(str(name) for name in names)


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
        if _locate(root, _first_entry(spec)) is not None:
            return root
    return roots[-1] if spec.download else next((root for root in roots if os.path.isdir(root)), roots[0])


def _first_entry(spec: DataSpec) -> str:
    return next(iter(spec.splits.values()))[0]


def _is_available(spec: DataSpec) -> bool:
    return _locate(spec.root, _first_entry(spec)) is not None


def _with_fallback(spec: DataSpec, report: Callable[[str], None]) -> DataSpec:
    """Use `val_fallback` where the validation split is missing, and report it."""
    if not spec.val_fallback or all(_locate(spec.root, entry) for entry in spec.splits.get("val", ())):
        return spec
    report(
        f"{spec.root} has no {', '.join(spec.splits['val'])}: "
        f"val is the {spec.val_fallback} split, so its metrics are those of training images"
    )
    return replace(spec, splits={**spec.splits, "val": spec.splits[spec.val_fallback]})


def _locate(root: Path, entry: str) -> Path | None:
    """The path of an entry of a split, or None where it does not exist."""
    given = Path(os.path.expanduser(entry))
    path = Path(os.path.abspath(root / given))
    if os.path.exists(path):  # unlike Path.exists, False for an invalid name
        return path
    # Annotation tools export `../train/images` in a YAML that is in the same folder as `train`.
    parts = [part for part in given.parts if part != ".."]
    if given.parts[:1] == ("..",) and os.path.exists(path := root.joinpath(*parts)):
        return path
    return None


def _files_under(folder: Path) -> list[str]:
    """The images in a folder and its subfolders, else the tar shards, and the folders that cannot be read.

    Reading an unreadable folder as an image fails, so the index reports it as a problem instead of skipping it.
    """
    found, unreadable = files_below(folder, SUFFIXES | {SHARD})
    images = [file for file in found if not is_shard(file)]
    return (images or found) + unreadable


def _listed_images(listing: Path) -> list[str]:
    """The paths in a txt list; relative ones are relative to the list's folder."""
    return [os.path.abspath(listing.parent / line) for line in read_lines(listing)]
