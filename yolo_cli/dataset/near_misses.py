"""What is there instead of a path that does not exist, or of labels that are not found, in words for a message."""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from yolo_cli.dataset.formats.formats import SUFFIXES as ANNOTATION_SUFFIXES
from yolo_cli.dataset.formats.formats import Format, recognize
from yolo_cli.dataset.image_header import SUFFIXES
from yolo_cli.dataset.scan import label_path
from yolo_cli.errors import UserError

_ALIASES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_MAX_DEPTH = 5
_MAX_FILES = 200_000
_LISTED = 6  # folders
_SAMPLE = 50  # images whose labels are looked for


def suggest_images(root: Path, split: str, given: str) -> str:
    """Where the images of a split seem to be, such as "images are in train/images: write `train: train/images`".

    Empty where `root` has no images.
    """
    if not root.is_dir():
        return _suggest_root(root)
    folders = Counter(os.path.relpath(folder, root) for folder, name in _files(root) if _has_suffix(name, SUFFIXES))
    if not folders:
        return ""
    fitting = [folder for folder in folders if _names_split(folder, split)]
    close = [folder for folder in folders if folder.casefold() == given.casefold()]
    if not fitting and not close:
        others = difflib.get_close_matches(given, list(folders), n=1, cutoff=0.75)
        if not others or any(_names_split(others[0], other) for other in _ALIASES):
            listed = ", ".join(folder for folder, _ in folders.most_common(_LISTED))
            return f"images are in {listed}{', …' if len(folders) > _LISTED else ''}"
        close = others
    best = max(close or fitting, key=lambda folder: (folders[folder], folder))
    # Subfolders are searched, so that their common folder is the entry.
    parents = [folder for folder in fitting if best.startswith(folder + os.sep)]
    best = min(parents, key=len, default=best)
    return f"images are in {best}: write `{split}: {best}`"


def suggest_annotations(root: Path, split: str) -> str:
    """The annotation files of a split, such as "there is COCO JSON in annotations/train.json"; empty without any."""
    return f"there is {found[0]} in {found[1]}" if (found := _annotations(root, split)) else ""


def explain_no_labels(images: Sequence[str], root: Path, split: str) -> str:
    """Which labels were looked for, and which ones the dataset's folder has instead."""
    expected = os.path.relpath(label_path(images[0]), root)
    what = f"{split}: none of the {len(images):,} images has a label file such as {expected}"
    stems = {Path(image).stem for image in images[:_SAMPLE]}
    texts: Counter[str] = Counter()
    for folder, name in _files(root):
        if name.lower().endswith(".txt") and os.path.splitext(name)[0] in stems:
            texts[folder] += 1
    if texts:
        found = os.path.relpath(texts.most_common(1)[0][0], root)
        return f"{what}; there are some in {found}: put them in {os.path.dirname(expected) or '.'}"
    annotations = _annotations(root, split)
    if annotations is None:
        return what
    title, entry = annotations
    folder = os.path.relpath(os.path.commonpath([os.path.dirname(image) for image in images]), root)
    return f"{what}; there is {title} in {entry}: write `{split}: {{images: {folder}, annotations: {entry}}}`"


def _annotations(root: Path, split: str) -> tuple[str, str] | None:
    """The format of annotations below a folder, and the file or folder of those of a split, else of all."""
    files = [os.path.join(folder, name) for folder, name in _files(root) if _has_suffix(name, ANNOTATION_SUFFIXES)]
    named = [file for file in files if _names_split(os.path.relpath(file, root), split)]
    for candidates in (named, files):
        known = _format_of(candidates)
        if known is not None:
            fitting = [file for file in candidates if file.lower().endswith(known.suffix)]
            if len(fitting) > 1 and known.title.startswith("COCO"):
                fitting = [file for file in fitting if _format_of([file]) is known][:1]
            entry = fitting[0] if len(fitting) == 1 else os.path.commonpath([os.path.dirname(file) for file in fitting])
            return known.title, os.path.relpath(entry, root)
    return None


def _format_of(annotations: Sequence[str]) -> Format | None:
    try:
        found = recognize(annotations)
    except UserError:
        return None
    return found.format if found else None


def _suggest_root(root: Path) -> str:
    above = root.parent
    while not above.is_dir() and above != above.parent:
        above, root = above.parent, above
    try:
        near = difflib.get_close_matches(root.name, [entry.name for entry in os.scandir(above) if entry.is_dir()], n=1)
    except OSError:
        return ""
    return f"{above} has {near[0]}" if near else ""


def _names_split(path: str, split: str) -> bool:
    """Whether a part of a path begins with the name of a split, as in `train2017` and `instances_train.json`."""
    words = [word for part in Path(path).parts for word in part.lower().replace("-", "_").replace(".", "_").split("_")]
    return any(word.rstrip("0123456789") in _ALIASES[split] for word in words)


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """(folder, name) of the files in a folder and its subfolders, up to a depth and a number."""
    count = 0
    for base, folders, files in os.walk(root):
        depth = len(Path(base).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < _MAX_DEPTH else []
        for name in sorted(files):
            if not name.startswith("."):
                yield base, name
        count += len(files)
        if count > _MAX_FILES:
            return


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes
