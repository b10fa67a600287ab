"""Images that occur twice: identical files, near-duplicates in two splits, and frames of one scene."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from yolo_cli.data_checks.findings import ERROR, WARNING, CheckedSplit, Finding, Item, View, count_of, listed
from yolo_cli.data_checks.image_quality import UNIFORM
from yolo_cli.data_checks.similar_images import SAME_DETAIL, SAME_TONES, similar_pairs
from yolo_cli.dataset.splitting import Groups

MIN_FRAMES = 4  # images of a chain


@dataclass(frozen=True)
class _Images:
    """All images of all splits in one order."""

    splits: Sequence[CheckedSplit]
    split: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    paths: list[str]

    @staticmethod
    def of(splits: Sequence[CheckedSplit]) -> "_Images":
        sizes = [len(split.index) for split in splits]
        return _Images(
            splits,
            np.repeat(np.arange(len(splits)), sizes),
            np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)]),
            [os.fspath(split.index.path(i)) for split in splits for i in range(len(split.index))],
        )

    def name(self, split: int) -> str:
        return self.splits[split].name

    def view(self, i: int) -> View:
        return View(self.name(int(self.split[i])), int(self.row[i]))

    def pair(self, a: int, b: int, detail: str = "") -> Item:
        return Item(self.paths[a], 0, detail, self.paths[b], views=(self.view(a), self.view(b)))


def check_duplicates(splits: Sequence[CheckedSplit]) -> list[Finding]:
    """Findings about images of all splits. Without image statistics, only identical files are found."""
    images = _Images.of(splits)
    groups = _identical(images)
    findings = _leaks(images, groups) + _repeated(images, groups)
    if images.paths and all(split.stats is not None for split in splits):
        findings += _similar(images, groups)
    return findings


def leaked_images(splits: Sequence[CheckedSplit]) -> dict[str, dict[int, str]]:
    """By split, the rows of images that a later split has, too, with their path there."""
    images = _Images.of(splits)
    found: dict[str, dict[int, str]] = {split.name: {} for split in splits}
    for group in _members(_identical(images)):
        last = max(group, key=lambda i: images.split[i])
        for i in group:
            if images.split[i] < images.split[last]:
                found[images.name(int(images.split[i]))][int(images.row[i])] = images.paths[last]
    return found


def _identical(images: _Images) -> Int[np.ndarray, " n"]:
    """A number per image that identical ones share: of the same file, the same content, or the same pixels."""
    groups = Groups(len(images.paths))
    groups.join_equal(images.paths)
    if all(split.stats is not None for split in images.splits):
        for name in ("content", "pixels"):
            digests = [digest.tobytes() for split in images.splits for digest in getattr(split.stats, name)]
            groups.join_equal([digest if any(digest) else i for i, digest in enumerate(digests)])
    else:
        groups.join_equal(_content_keys(images))
    return groups.numbers()


def _content_keys(images: _Images) -> list[object]:
    """A key per image that is equal for files of equal content. Only files of equal length and size are read."""
    keys: list[object] = [
        (_length(path), *images.splits[s].index.sizes[r].tolist())
        for path, s, r in zip(images.paths, images.split.tolist(), images.row.tolist(), strict=True)
    ]
    for part in (4096, None):
        counts: dict[object, int] = {}
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        for i, key in enumerate(keys):
            keys[i] = (key, _content(images, i, part)) if counts[key] > 1 else (key, i)
    return keys


def _length(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # an image in a shard
        return 0


def _content(images: _Images, i: int, part: int | None) -> object:
    """The last bytes of a file, which differ in most images; all of them by their hash. `i` where it is unreadable."""
    try:
        if part is None:
            index = images.splits[images.split[i]].index
            return hash(index.content(int(images.row[i])))
        with open(images.paths[i], "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - part, 0))
            return hash(file.read())
    except OSError:
        return "" if part else i


def _leaks(images: _Images, groups: Int[np.ndarray, " n"]) -> list[Finding]:
    """Identical images in two splits: one finding per pair of splits."""
    findings = []
    members = _members(groups)
    for a, b in itertools.combinations(range(len(images.splits)), 2):
        pairs = []
        for group in members:
            in_a, in_b = ([i for i in group if images.split[i] == s] for s in (a, b))
            if in_a and in_b:
                pairs.append((in_a[0], in_b[0]))
        if pairs:
            where = f"in {images.name(a)} and in {images.name(b)}"
            what = count_of(len(pairs), f"image is {where}", f"images are {where}")
            items = listed(images.pair(i, j, _label_difference(images, i, j)) for i, j in pairs)
            findings.append(Finding("leak", ERROR, f"{images.name(a)}, {images.name(b)}", len(pairs), what, items))
    return findings


def _repeated(images: _Images, groups: Int[np.ndarray, " n"]) -> list[Finding]:
    findings = []
    for s, split in enumerate(images.splits):
        pairs = []
        for group in _members(groups):
            inside = [i for i in group if images.split[i] == s]
            pairs += [(inside[0], other) for other in inside[1:]]
        if pairs:
            what = count_of(len(pairs), "copy of an image of the same split", "copies of images of the same split")
            items = listed(images.pair(i, j, _label_difference(images, i, j)) for i, j in pairs)
            findings.append(Finding("duplicate-images", WARNING, split.name, len(pairs), what, items))
    return findings


def _label_difference(images: _Images, a: int, b: int) -> str:
    first, second = (images.splits[images.split[i]].index.labels(int(images.row[i])) for i in (a, b))
    same = first.shape == second.shape and np.allclose(np.sort(first, axis=0), np.sort(second, axis=0), atol=0.01)
    return "" if same else "their labels differ"


def _similar(images: _Images, groups: Int[np.ndarray, " n"]) -> list[Finding]:
    """Near-duplicates in two splits, and chains of frames over several splits."""
    thumbs = np.concatenate([split.stats.thumbs for split in images.splits if split.stats is not None])
    usable = np.concatenate(
        [split.stats.decoded & (split.stats.contrast >= UNIFORM) for split in images.splits if split.stats is not None]
    )
    a, b, tones, detail = similar_pairs(thumbs, usable, [os.path.basename(path) for path in images.paths])
    crossing = (images.split[a] != images.split[b]) & (groups[a] != groups[b])
    same = crossing & (tones >= SAME_TONES) & (detail >= SAME_DETAIL)
    best: dict[int, tuple[float, int]] = {}  # by the image in the later split, its most similar one
    for i, j, score in zip(a[same].tolist(), b[same].tolist(), (tones + detail)[same].tolist(), strict=True):
        earlier, later = (i, j) if images.split[i] < images.split[j] else (j, i)
        best[later] = max(best.get(later, (0.0, earlier)), (score, earlier))
    findings = []
    for s, split in enumerate(images.splits):
        pairs = [(earlier, later) for later, (_, earlier) in sorted(best.items()) if images.split[later] == s]
        if pairs:
            what = count_of(len(pairs), "near-duplicate", "near-duplicates") + " of images in another split"
            items = listed(images.pair(later, earlier) for earlier, later in pairs)
            findings.append(Finding("near-duplicate", WARNING, split.name, len(pairs), what, items))
    return findings + _chains(images, groups, a, b)


def _chains(
    images: _Images, groups: Int[np.ndarray, " n"], a: Int[np.ndarray, " p"], b: Int[np.ndarray, " p"]
) -> list[Finding]:
    """Chains of at least MIN_FRAMES different images that are similar one to the next, in several splits."""
    chains = Groups(len(images.paths))
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        chains.join(i, j)
    items, count = [], 0
    for chain in _members(chains.numbers()):
        splits = images.split[chain]
        if len(np.unique(groups[chain])) < MIN_FRAMES or len(np.unique(splits)) < 2:
            continue
        parts = [f"{int((splits == s).sum())} in {images.name(s)}" for s in np.unique(splits).tolist()]
        detail = f"{len(chain)} similar images: {', '.join(parts)}"
        by_name = sorted(chain, key=lambda i: (os.path.basename(images.paths[i]), i))
        shown = [next(i for i in by_name if images.split[i] == s) for s in np.unique(splits).tolist()]
        items.append(Item(images.paths[by_name[0]], 0, detail, views=tuple(images.view(i) for i in shown)))
        count += len(chain)
    if not items:
        return []
    scenes = count_of(len(items), "scene is", "scenes are")
    return [
        Finding(
            "video-frames", WARNING, "all", len(items), f"{scenes} spread over splits ({count} images)", listed(items)
        )
    ]


def _members(groups: Int[np.ndarray, " n"]) -> list[list[int]]:
    """The groups of two or more elements."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    return [part.tolist() for part in np.split(order, ends) if len(part) > 1]
