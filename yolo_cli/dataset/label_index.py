"""The label index: sizes and boxes of all images in a few flat arrays, with the problems found; cached on disk."""

import contextlib
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from yolo_cli.dataset.formats.annotations import ENCLOSED
from yolo_cli.dataset.ignore_regions import IgnoreRegions, merge_regions, separate_regions
from yolo_cli.dataset.scan import ScanResult, label_path, read_range
from yolo_cli.dataset.scan_pool import scan_all, scan_groups
from yolo_cli.dataset.shards.spool import read_spooled
from yolo_cli.dataset.shards.store import ShardState, release_connections, shard_states
from yolo_cli.dataset.shards.urls import is_shard, is_url, without_scheme
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_path

FORMAT = 7  # of the cache files; raise it with any change of what is read from labels or images

_REGION_ARRAYS = ("region_classes", "region_boxes", "region_offsets")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row of a label file, or with line 0 a whole file, is left out of the index."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True)
class LabelIndex:
    """The readable images of a split and their boxes, n images and m boxes.

    `sizes` are (height, width) as displayed. `boxes` are cx, cy, w, h as fractions of the image; those of image i are
    the rows `offsets[i]` to `offsets[i + 1]`. `ignored` are the regions in which nothing is labeled. `fingerprint` is a
    hash of names, sizes and labels that does not depend on the dataset's location.

    The path of an image in a tar shard is the shard's path followed by the image's name in it. `spans` holds for each
    image the length of the shard's path in bytes, and the first byte and length of the image in the shard; all 0 for
    an image that is a file of its own. Without shards `spans` is empty. `remote` holds the states of the shards that
    are at URLs, and `spool` the folder in which a `ShardSpool` keeps copies of them, if there is one.
    """

    paths: bytes | memoryview
    path_offsets: Int64[np.ndarray, " n1"]
    spans: Int64[np.ndarray, "_ 3"]
    sizes: Int32[np.ndarray, "n 2"]
    classes: Int32[np.ndarray, " m"]
    boxes: Float32[np.ndarray, "m 4"]
    offsets: Int64[np.ndarray, " n1"]
    problems: tuple[Problem, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    ignored: IgnoreRegions | None = None
    remote: Mapping[str, ShardState] = field(default_factory=dict)
    spool: str = ""

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, i: int) -> Path:
        """The path of image i."""
        return Path(self.name(i))

    def name(self, i: int) -> str:
        """The path of image i as text; of an image in a shard at a URL, that URL and the image's name in it."""
        return os.fsdecode(bytes(self.paths[self.path_offsets[i] : self.path_offsets[i + 1]]))

    def file(self, i: int) -> Path:
        """The file on disk that contains image i: its own, or a shard."""
        return Path(self.shard(i) or self.name(i))

    def state(self, i: int) -> str:
        """The size and version of the file that contains image i. Raises UserError where it cannot be read."""
        file = self.shard(i) or self.name(i)
        if file in self.remote:
            return f"{self.remote[file].size} {self.remote[file].version}"
        try:
            state = os.stat(file)
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=self.name(i)) from None
        return f"{state.st_size} {state.st_mtime_ns}"

    def content(self, i: int) -> bytes:
        """The encoded content of image i. Raises UserError where it cannot be read."""
        shard = self.shard(i)
        try:
            if not shard:
                return self.path(i).read_bytes()
            _, start, length = self.spans[i].tolist()
            if self.spool and is_url(shard):
                content = read_spooled(self.spool, shard, start, length)
            else:
                content = read_range(shard, start, length)
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=self.name(i)) from None
        if len(content) < length:
            raise UserError(
                "the shard ends before it", where=self.name(i), fix="do not change the dataset during a run"
            )
        return content

    def shard(self, i: int) -> str:
        """The path or URL of the shard that contains image i; empty where it is a file of its own."""
        start = self.path_offsets[i]
        return os.fsdecode(bytes(self.paths[start : start + self.spans[i, 0]])) if len(self.spans) else ""

    def labels(self, i: int) -> Float32[np.ndarray, "k 5"]:
        """The rows (class, cx, cy, w, h) of image i, with the box as fractions of the image."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        table = np.empty((rows.stop - rows.start, 5), np.float32)
        table[:, 0] = self.classes[rows]
        table[:, 1:] = self.boxes[rows]
        return table

    def single_cls(self) -> "LabelIndex":
        """The same boxes, all of class 0."""
        ignored = self.ignored.single_cls() if self.ignored else None
        return with_fingerprint(replace(self, classes=np.zeros_like(self.classes), ignored=ignored))

    def ignored_rows(self, i: int) -> Float32[np.ndarray, "k 5"]:
        """The regions of image i that are to be ignored: rows (class or −1 for all, cx, cy, w, h)."""
        return self.ignored.rows(i) if self.ignored else np.zeros((0, 5), np.float32)


def build_index(
    images: Sequence[str | Path],
    nc: int,
    *,
    strict: bool,
    cache_dir: Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
    allow_empty: bool = False,
) -> LabelIndex:
    """Read the sizes and labels of `images`, which may include tar shards, or load them from the cache if unchanged.

    An image with a missing or empty label file is background. Invalid rows and unreadable images are left out and
    listed in `problems`; with `strict`, any of them raises UserError. `workers` processes read large datasets;
    `progress` is called with (files done, files in total). A cache folder that cannot be written is not an error.
    If no image can be read, that raises UserError, too, unless `allow_empty` is set.
    """
    files = [os.fspath(image) for image in images]
    cache = None
    if cache_dir is not None:
        name = hashlib.blake2b("\0".join(files).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        cache = cache_dir / "labels" / f"{name}-{nc}.npz"
        key = _state_hash(files)
        stored = load_cache(cache, key)
        index = stored[0] if stored else None
    else:
        key, index = "", None
    if index is None:
        groups = scan_groups(files)
        index = _build(groups, scan_all(groups, nc, workers), progress)
        if cache is not None:
            save_cache(cache, key, index)
    elif progress:
        progress(len(files), len(files))
    if any(map(is_url, files)):
        release_connections()
    if strict:
        require_no_problems(index)
    if not len(index) and not allow_empty:
        first_line = f", first: {index.problems[0]}" if index.problems else ""
        raise UserError(f"none of {len(files)} images can be read{first_line}")
    return index


def require_no_problems(index: LabelIndex) -> None:
    """Raises UserError with the first problem (`--strict`)."""
    if index.problems:
        first, count = index.problems[0], len(index.problems)
        where = f"{first.file}:{first.line}" if first.line else first.file
        raise UserError(
            f"{first.what} ({count} problem{'s' * (count > 1)} in total)",
            where=where,
            fix="fix it or leave out --strict",
        )


def with_fingerprint(index: LabelIndex) -> LabelIndex:
    """The index with the fingerprint of its content."""
    return replace(index, fingerprint=_fingerprint(index))


def merge_indexes(indexes: Sequence[LabelIndex]) -> LabelIndex:
    """One index of the images of several, in the order of their paths.

    An image that is in several is taken from the first; the others are listed in `problems`.
    """
    if len(indexes) == 1:
        return indexes[0]
    names = [name for index in indexes for name in _names(index)]
    source = [i for i, index in enumerate(indexes) for _ in range(len(index))]
    problems = [problem for index in indexes for problem in index.problems]
    order: list[int] = []
    for i in sorted(range(len(names)), key=lambda i: (names[i], source[i])):
        if order and names[order[-1]] == names[i]:
            what = "is in the split twice, with other annotations; the first ones are used"
            problems.append(Problem(os.fsdecode(names[i]), 0, what))
            continue
        order.append(i)
    spans = [index.spans if len(index.spans) else np.zeros((len(index), 3), np.int64) for index in indexes]
    counts = np.concatenate([np.diff(index.offsets) for index in indexes])[order]
    starts = np.concatenate([[0], np.cumsum([len(index.boxes) for index in indexes])])
    firsts = np.concatenate([index.offsets[:-1] + start for index, start in zip(indexes, starts, strict=False)])[order]
    offsets = _offsets(counts)
    rows = np.repeat(firsts - offsets[:-1], counts) + np.arange(offsets[-1])
    ordered = [names[i] for i in order]
    return with_fingerprint(
        LabelIndex(
            paths=b"".join(ordered),
            path_offsets=_offsets(np.array([len(name) for name in ordered], np.int64)),
            spans=np.concatenate(spans)[order] if any(len(index.spans) for index in indexes) else spans[0][:0],
            sizes=np.concatenate([index.sizes for index in indexes])[order],
            classes=np.concatenate([index.classes for index in indexes])[rows],
            boxes=np.concatenate([index.boxes for index in indexes])[rows],
            offsets=offsets,
            problems=tuple(problems),
            fingerprint="",
            notes=tuple(note for index in indexes for note in index.notes),
            ignored=merge_regions([index.ignored for index in indexes], [len(index) for index in indexes], order),
            remote={url: state for index in indexes for url, state in index.remote.items()},
        )
    )


def _build(
    groups: list[Sequence[str]], scans: Iterable[ScanResult], progress: Callable[[int, int], None] | None
) -> LabelIndex:
    names: list[bytes] = []
    spans, sizes, counts, classes, boxes = (bytearray() for _ in range(5))
    problems: list[Problem] = []
    remote: dict[str, ShardState] = {}
    done, files, polygons = 0, sum(map(len, groups)), 0
    sharded = any(is_shard(group[0]) for group in groups)
    for group, scan in zip(groups, scans, strict=True):
        separate = [os.fsencode(file) for file in itertools.compress(group, scan.readable)]
        names += separate or scan.names
        if sharded:
            spans += bytes(24 * len(separate)) + scan.spans.tobytes()
        sizes += scan.sizes.tobytes()
        counts += scan.counts.tobytes()
        classes += scan.classes.tobytes()
        boxes += scan.boxes.tobytes()
        problems.extend(Problem(*problem) for problem in scan.problems)
        polygons += scan.polygons
        remote |= scan.remote
        done += len(group)
        if progress:
            progress(done, files)
    rows = separate_regions(
        np.frombuffer(bytes(classes), np.int32),
        np.frombuffer(bytes(boxes), np.float32).reshape(-1, 4),
        _offsets(np.frombuffer(bytes(counts), np.int64)),
    )
    index = LabelIndex(
        paths=b"".join(names),
        path_offsets=_offsets(np.array([len(name) for name in names], np.int64)),
        spans=np.frombuffer(bytes(spans), np.int64).reshape(-1, 3),
        sizes=np.frombuffer(bytes(sizes), np.int32).reshape(-1, 2),
        classes=rows[0],
        boxes=rows[1],
        offsets=rows[2],
        problems=tuple(problems),
        fingerprint="",
        notes=(f"{ENCLOSED}: {polygons:,}",) if polygons else (),
        ignored=rows[3],
        remote=remote,
    )
    return with_fingerprint(index)


def _offsets(counts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n1"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _fingerprint(index: LabelIndex) -> str:
    digest = hashlib.sha256()
    folders = {os.path.dirname(name) for name in _locations(index)}
    base = len(os.path.commonpath(folders)) if folders else 0
    for name in _locations(index):
        relative = name[base:].replace(os.sep.encode(), b"/").lstrip(b"/")
        digest.update(relative + b"\0")
    tables = [index.sizes, index.offsets, index.classes, index.boxes]
    if index.ignored:
        tables += [index.ignored.offsets, index.ignored.classes, index.ignored.boxes]
    for table in tables:
        digest.update(np.ascontiguousarray(table, table.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _names(index: LabelIndex) -> Iterator[bytes]:
    for start, end in itertools.pairwise(index.path_offsets.tolist()):
        yield bytes(index.paths[start:end])


def _locations(index: LabelIndex) -> Iterator[bytes]:
    """The paths of all images. URLs become absolute paths, so that copies of a dataset have the same fingerprint."""
    yield from map(without_scheme, _names(index)) if index.remote else _names(index)


def _state_hash(files: list[str]) -> str:
    """A hash of the sizes and modification times of all image and label files.

    Raises UserError where a shard at a URL does not exist or cannot be reached.
    """
    digest = hashlib.blake2b(f"{FORMAT}".encode(), digest_size=16)
    for remote in shard_states([file for file in files if is_url(file)]):
        digest.update(b"%d %s;" % (remote.size, remote.version.encode()))
    for file in files:
        if is_url(file):
            continue
        for path in (file,) if is_shard(file) else (file, label_path(file)):
            try:
                state = os.stat(path)
                digest.update(b"%d %d;" % (state.st_size, state.st_mtime_ns))
            except OSError:
                digest.update(b"-;")
    return digest.hexdigest()


def save_cache(cache: Path, key: str, index: LabelIndex, names: Sequence[str] = ()) -> None:
    """Write an index, and words that belong to it. A folder that cannot be written is not an error."""
    remote = {url: [state.size, state.version] for url, state in index.remote.items()}
    words = json.dumps([[*index.notes], [*names], remote]).encode()
    problems = json.dumps([[p.file, p.line, p.what] for p in index.problems]).encode()
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cache) as part, open(part, "wb") as out:  # savez adds a suffix to a bare path
            np.savez(
                out,
                key=np.array(key),
                paths=np.frombuffer(index.paths, np.uint8),
                path_offsets=index.path_offsets,
                spans=index.spans,
                sizes=index.sizes,
                classes=index.classes,
                boxes=index.boxes,
                offsets=index.offsets,
                **_region_arrays(index.ignored),
                problems=np.frombuffer(problems, np.uint8),
                words=np.frombuffer(words, np.uint8),
                fingerprint=np.array(index.fingerprint),
            )


def _region_arrays(regions: IgnoreRegions | None) -> dict[str, Any]:
    if regions is None:
        return {}
    return dict(zip(_REGION_ARRAYS, (regions.classes, regions.boxes, regions.offsets), strict=True))


def load_cache(cache: Path, key: str) -> tuple[LabelIndex, list[str]] | None:
    """The cached index with its words; None where it is missing or damaged, or the files have changed since."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            notes, names, remote = json.loads(stored["words"].tobytes())
            index = LabelIndex(
                paths=stored["paths"].tobytes(),
                path_offsets=stored["path_offsets"],
                spans=stored["spans"],
                sizes=stored["sizes"],
                classes=stored["classes"],
                boxes=stored["boxes"],
                offsets=stored["offsets"],
                problems=tuple(Problem(*problem) for problem in json.loads(stored["problems"].tobytes() or b"[]")),
                fingerprint=str(stored["fingerprint"]),
                notes=tuple(notes),
                ignored=IgnoreRegions(*(stored[name] for name in _REGION_ARRAYS))
                if _REGION_ARRAYS[0] in stored
                else None,
                remote={url: ShardState(*state) for url, state in remote.items()},
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return None
    return (index, names) if index.fingerprint == _fingerprint(index) else None
