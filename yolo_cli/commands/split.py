"""`yolo split`: lists of images for train, val and test, or for cross-validation."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from yolo_cli.config import SplitConfig
from yolo_cli.data_checks.image_quality import UNIFORM
from yolo_cli.data_checks.image_stats import measure_images
from yolo_cli.data_checks.similar_images import SAME_DETAIL, SAME_TONES, similar_pairs
from yolo_cli.dataset.annotated_index import build_annotated_index
from yolo_cli.dataset.entries import SplitEntry
from yolo_cli.dataset.label_index import LabelIndex, merge_indexes
from yolo_cli.dataset.spec import DataSpec, images_spec, split_entries
from yolo_cli.dataset.splits import Split, load_splits, prepare_dataset
from yolo_cli.dataset.splitting import Groups, assign_groups, images_per_class
from yolo_cli.device import cores, default_workers
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_folder
from yolo_cli.io.cache_dir import user_cache_folder
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.progress import Reporter

Subset = tuple[str, Int64[np.ndarray, " _"]]  # "train", "val" or "test", and its images


@dataclass(frozen=True)
class _Origin:
    """Where images come from: those with txt labels (`entry` None), or an annotated entry."""

    entry: SplitEntry | None
    images: frozenset[str]


def run(config: SplitConfig, reporter: Reporter) -> Path:
    """Write lists of images and a data.yaml to the folder `config.output`; returns it. Raises UserError."""
    # Set up
    target = Path(os.path.abspath(os.path.expanduser(config.output)))
    if os.path.lexists(target):
        raise UserError("exists already", where=f"--output {target}", fix="name another folder, or remove it first")
    spec = _open(config, reporter)
    splits = load_splits(spec, reporter, workers=default_workers(config.workers, 8))
    index = _all_images(splits, config, reporter)
    origins = _origins(spec, [split.name for split in splits], reporter)
    names = spec.names[: int(index.classes.max(initial=0)) + 1] if spec.names_are_numbers else spec.names

    # Split
    groups = _groups(index, config, reporter)
    classes = images_per_class(index, len(names)) if config.stratify else None
    parts = _split(config, groups, classes)

    # Write
    with atomic_folder(target, fix="name another --output") as folder:
        for name, subsets in parts:
            (folder / name).mkdir(parents=True)
            _write(folder / name, subsets, index, origins, names)

    # Report
    for name, subsets in parts:
        for line in _table(name, subsets, index):
            reporter.info(line)
        for line in _missing(name, subsets, index, names):
            reporter.warn(line)
    if spec.names_are_numbers:
        reporter.warn(f"no class names found: data.yaml has {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
    for name, _ in parts:
        reporter.info(f"wrote {target / name / 'data.yaml'}")
    return target


def _open(config: SplitConfig, reporter: Reporter) -> DataSpec:
    """The dataset of a data.yaml, or of a folder or list of images."""
    source = Path(os.path.expanduser(config.images))
    if source.is_dir() or source.suffix.lower() == ".txt":
        return images_spec(source, reporter)
    return prepare_dataset(config.images, reporter, "IMAGES")


def _all_images(splits: Sequence[Split], config: SplitConfig, reporter: Reporter) -> LabelIndex:
    """The images of all splits of a dataset, each once."""
    index = merge_indexes([split.index for split in splits])
    if len(index.spans):
        raise UserError("images in tar shards cannot be listed", where=config.images, fix="unpack them first")
    if repeated := sum(len(split.index) for split in splits) - len(index):
        reporter.warn(f"{repeated:,} images are in two splits; they are used once, with the labels of the first")
    return index


def _origins(spec: DataSpec, splits: Sequence[str], reporter: Reporter) -> list[_Origin]:
    """Where the images come from. One that is in several entries is that of the first, txt labels before others."""
    files = [entry for name in splits for entry in split_entries(spec, name)]
    origins = [_Origin(None, frozenset(image for entry in files for image in entry.images))]
    for source in dict.fromkeys(entry.annotated for entry in files if entry.annotated is not None):
        index = build_annotated_index(source, cache_dir=user_cache_folder(), reporter=reporter).index
        own = {os.fspath(index.path(i)) for i in range(len(index))}
        own.difference_update(*(origin.images for origin in origins))
        entry = SplitEntry(source.image_folder(), source.path, ignore_difficult=source.ignore_difficult)
        origins.append(_Origin(entry, frozenset(own)))
    return origins


def _groups(index: LabelIndex, config: SplitConfig, reporter: Reporter) -> Int64[np.ndarray, " n"]:
    """The group of each image: those with the same match of --group, and near-duplicates."""
    paths = [os.fspath(index.path(i)) for i in range(len(index))]
    groups = Groups(len(index))
    if config.group:
        pattern = re.compile(config.group)
        matches = [pattern.search(path.replace(os.sep, "/")) for path in paths]
        keys = [match and (match.groups() or match[0]) for match in matches]
        groups.join_equal(keys)
        if (without := sum(key is None for key in keys)) == len(keys):
            raise UserError("matches no path", where=f"--group {config.group}", fix=f"a path is {paths[0]}")
        reporter.info(f"--group: {len({*keys} - {None}):,} groups; {without:,} images match nothing, each is its own")
    if not config.ignore_duplicates:
        count = 0
        for a, b in _near_duplicates(index, paths, reporter):
            groups.join(a, b)
            count += 1
        if count:
            reporter.info(f"near-duplicates that stay together: {count:,} {'pairs' if count > 1 else 'pair'}")
    return groups.numbers()


def _near_duplicates(index: LabelIndex, paths: Sequence[str], reporter: Reporter) -> list[tuple[int, int]]:
    """Pairs of images that `yolo check` would report as the same picture."""
    with reporter.bar(len(index), "near-duplicates") as bar:
        stats = measure_images(index, threads=cores(), advance=bar.advance)
    usable = stats.decoded & (stats.contrast >= UNIFORM)
    a, b, tones, detail = similar_pairs(stats.thumbs, usable, [os.path.basename(path) for path in paths])
    same = (tones >= SAME_TONES) & (detail >= SAME_DETAIL)
    pairs = list(zip(a[same].tolist(), b[same].tolist(), strict=True))
    first: dict[bytes, int] = {}
    for i, digest in enumerate(stats.content):
        if stats.decoded[i] and (other := first.setdefault(digest.tobytes(), i)) != i:
            pairs.append((other, i))
    return list(dict.fromkeys(pairs))


def _split(
    config: SplitConfig, groups: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, "n columns"] | None
) -> list[tuple[str, list[Subset]]]:
    """The folders to write, each with its subsets."""
    wanted = [(name, share) for name, share in (("val", config.val), ("test", config.test)) if share]
    if not config.folds:
        names = ["train", *(name for name, _ in wanted)]
        shares = [1 - sum(share for _, share in wanted), *(share for _, share in wanted)]
        subset = _assigned(groups, shares, classes, config, "subsets")
        return [("", [(name, np.flatnonzero(subset == k)) for k, name in enumerate(names)])]
    rest = np.arange(len(groups))
    held_out: list[Subset] = []
    if config.test:
        subset = _assigned(groups, [1 - config.test, config.test], classes, config, "subsets")
        rest, test = np.flatnonzero(subset == 0), np.flatnonzero(subset == 1)
        held_out = [("test", test)]
    renumbered = np.unique(groups[rest], return_inverse=True)[1].astype(np.int64)
    fold = _assigned(renumbered, [1.0] * config.folds, None if classes is None else classes[rest], config, "folds")
    return [
        (f"fold{k + 1}", [("train", rest[fold != k]), ("val", rest[fold == k]), *held_out]) for k in range(config.folds)
    ]


def _assigned(
    groups: Int64[np.ndarray, " n"],
    shares: Sequence[float],
    classes: Int64[np.ndarray, "n columns"] | None,
    config: SplitConfig,
    what: str,
) -> Int64[np.ndarray, " n"]:
    subset = assign_groups(groups, shares, classes, config.seed)
    if len(np.unique(subset)) < len(shares):
        count = len(np.unique(groups))
        raise UserError(
            f"{count} groups of images cannot fill {len(shares)} {what} of these sizes",
            where=config.images,
            fix="ask for fewer or larger ones, or for smaller groups",
        )
    return subset


def _write(
    folder: Path, subsets: Sequence[Subset], index: LabelIndex, origins: Sequence[_Origin], names: Sequence[str]
) -> None:
    """Write a list per subset and origin, and the data.yaml that names them."""
    keys: dict[str, Any] = {}
    for name, rows in subsets:
        paths = [os.fspath(index.path(i)) for i in rows.tolist()]
        entries: list[str | dict[str, str | bool]] = []
        for origin in origins:
            own = [path for path in paths if path in origin.images]
            if not own:
                continue
            listing = f"{name}{f'-{len(entries) + 1}' if entries else ''}.txt"
            (folder / listing).write_bytes("".join(f"{path}\n" for path in own).encode("utf-8", "surrogateescape"))
            entries.append(listing if origin.entry is None else replace(origin.entry, listed=listing).to_value())
        keys[name] = entries[0] if len(entries) == 1 else entries
    write_mapping(folder / "data.yaml", {**keys, "names": list(names)})


def _table(name: str, subsets: Sequence[Subset], index: LabelIndex) -> list[str]:
    counts = np.diff(index.offsets)
    prefix = f"{name} " if name else ""
    return [
        f"{prefix}{subset}: {len(rows):,} images ({len(rows) / len(index):.1%}), {int(counts[rows].sum()):,} boxes"
        for subset, rows in subsets
    ]


def _missing(name: str, subsets: Sequence[Subset], index: LabelIndex, names: Sequence[str]) -> list[str]:
    """A line per subset that lacks a class which the dataset has."""
    table = images_per_class(index, len(names))[:, : len(names)]
    existing = table.any(0)
    lines = []
    for subset, rows in subsets:
        lacking = [names[c] for c in np.flatnonzero(existing & ~table[rows].any(0)).tolist()]
        if lacking:
            shown = ", ".join(lacking[:5]) + (f", … {len(lacking)} in all" if len(lacking) > 5 else "")
            lines.append(f"{f'{name} ' if name else ''}{subset} has no {shown}")
    return lines
