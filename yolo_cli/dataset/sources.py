"""The files of a split: images with txt labels, tar shards, and annotation files of other formats."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from yolo_cli.dataset.annotated_index import AnnotationSource
from yolo_cli.dataset.darknet_data import KEYS, base_of, read_darknet_data
from yolo_cli.dataset.darknet_data import SUFFIX as DARKNET_SUFFIX
from yolo_cli.dataset.entries import SplitEntry, locate
from yolo_cli.dataset.formats.formats import SUFFIXES as ANNOTATION_SUFFIXES
from yolo_cli.dataset.formats.formats import Format, recognize
from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.dataset.image_list import ImageList, read_image_list
from yolo_cli.dataset.scan import label_path
from yolo_cli.dataset.shards.urls import SHARD, check_url, expand_ranges, is_shard, is_url
from yolo_cli.errors import UserError
from yolo_cli.io.file_tree import files_below
from yolo_cli.io.text_file import read_lines

_NO_IMAGES = (SHARD, *sorted(ANNOTATION_SUFFIXES))
_ANNOTATION_FOLDERS = ("annotations", "Annotations")
_IMAGE_FOLDERS = ("images", "JPEGImages")


@dataclass(frozen=True, slots=True)
class EntryFiles:
    """The files of one entry: images with txt labels and tar shards, or annotation files.

    `unused` counts annotation files that are not read, because images beside them have txt labels.
    """

    images: tuple[str, ...] = ()
    annotated: AnnotationSource | None = None
    unused: int = 0


def entry_files(entry: SplitEntry, root: Path, split: str, where: Path) -> EntryFiles:
    """Find the files of an entry of a split. Raises UserError, with `where`, for a path that does not exist."""
    files = _entry_files(entry, root, split, where)
    if not entry.ignore_difficult:
        return files
    if files.annotated is None:
        raise UserError(
            f"{split}: ignore_difficult, but {entry} has no Pascal VOC annotations", where=where, fix="remove it"
        )
    return replace(files, annotated=replace(files.annotated, ignore_difficult=True))


def _entry_files(entry: SplitEntry, root: Path, split: str, where: Path) -> EntryFiles:
    path, annotations, listed = (_existing(given, root, where) if given else None for given in _parts(entry))
    assert path is not None
    used = read_image_list(listed) if listed else None
    if annotations is not None:
        files = _annotation_files(annotations)
        if not files:
            raise UserError(f"{entry.annotations}: no .json or .xml files", where=where)
        return EntryFiles(annotated=AnnotationSource(str(annotations), files, (str(path),), used))
    if path.is_dir():
        found = _folder(path, used)
        return _only_listed(found, used) if used is not None and found.annotated is None else found
    suffix = path.suffix.lower()
    if suffix in ANNOTATION_SUFFIXES:
        return EntryFiles(annotated=AnnotationSource(str(path), (str(path),), image_folders(path), used))
    if suffix == DARKNET_SUFFIX:
        keys = read_darknet_data(path)
        if KEYS[split] not in keys:
            raise UserError(f"has no line `{KEYS[split]} = …`", where=path)
        return EntryFiles(listed_images(Path(keys[KEYS[split]])))
    if suffix == ".txt":
        return EntryFiles(listed_images(path))
    return EntryFiles((os.path.abspath(path),))


def _parts(entry: SplitEntry) -> tuple[str, str, str]:
    return entry.path, entry.annotations, entry.listed


def _existing(given: str, root: Path, where: Path) -> Path:
    path = locate(root, given)
    if path is None:
        raise UserError(f"{given} is not in {root}", where=where)
    return path


def _folder(folder: Path, used: tuple[str, ...] | None) -> EntryFiles:
    """The images of a folder and its subfolders, else its tar shards; or its annotation files.

    txt labels take precedence: annotation files are read where no image has one. A folder that cannot be read is
    listed as an image; reading it fails, so the index reports it instead of skipping it.
    """
    found, unreadable = files_below(folder, SUFFIXES | {SHARD} | ANNOTATION_SUFFIXES)
    others = [file for file in found if file[-5:].lower().endswith(_NO_IMAGES)]  # few among up to millions
    images = [file for file in found if not file[-5:].lower().endswith(_NO_IMAGES)] if others else found
    shards = [file for file in others if is_shard(file)]
    annotations = tuple(file for file in others if not is_shard(file))
    if not annotations or (shards and not images) or _format(annotations) is None:
        return EntryFiles((*(images or shards), *unreadable))
    if any(os.path.exists(label_path(image)) for image in images):
        unused = sum(_format((file,)) is not None for file in annotations)
        return EntryFiles((*images, *unreadable), unused=unused)
    folders = (str(folder),) if images else image_folders(folder)
    return EntryFiles(annotated=AnnotationSource(str(folder), annotations, folders, used))


def _format(annotations: tuple[str, ...]) -> Format | None:
    """The format of annotation files that happen to be in a folder; None where they are something else."""
    try:
        found = recognize(annotations)
    except UserError:
        return None
    return found.format if found else None


def _annotation_files(path: Path) -> tuple[str, ...]:
    return tuple(files_below(path, ANNOTATION_SUFFIXES)[0]) if path.is_dir() else (str(path),)


def _only_listed(found: EntryFiles, used: tuple[str, ...]) -> EntryFiles:
    selection = ImageList(used)
    return EntryFiles(tuple(file for file in found.images if selection.selects(file)), unused=found.unused)


def image_folders(annotations: Path) -> tuple[str, ...]:
    """Where the images of an annotation file or folder may be: beside it, or in the usual places near it."""
    base = annotations if annotations.is_dir() else annotations.parent
    folders = [base]
    name = annotations.stem.removeprefix("instances_") if annotations.is_file() else base.name
    for above in (base.parent, base.parent.parent) if _is_annotation_folder(base) else (base.parent,):
        folders += [above / part / name for part in _IMAGE_FOLDERS]
        folders += [above / name] if annotations.is_file() else []
        folders += [above / part for part in _IMAGE_FOLDERS]
    return tuple(dict.fromkeys(str(folder) for folder in folders))


def _is_annotation_folder(folder: Path) -> bool:
    return folder.name in _ANNOTATION_FOLDERS or folder.parent.name in _ANNOTATION_FOLDERS


def listed_images(listing: Path) -> tuple[str, ...]:
    """The paths in a txt list, and URLs of tar shards. Raises UserError for other URLs.

    Relative paths are relative to the list's folder, or to one above it as in Darknet.
    """
    lines = read_lines(listing)
    base = base_of([line for line in lines if not is_url(line)], listing.parent)
    return tuple(name for line in lines for name in _listed(line, base, listing))


def _listed(line: str, base: str, listing: Path) -> list[str]:
    if not is_url(line):
        return [os.path.abspath(os.path.join(base, line))]
    check_url(line, listing)
    return expand_ranges(line, listing)
