"""The label index: every image's size and boxes in a few flat arrays, with what was wrong, kept in the user's cache."""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from yolo_cli.dataset.scan import ScanResult, is_shard, label_path, read_range, scan_files, scan_shard
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import atomic_path

FORMAT = 3  # of the cache files; any change of what is read from labels or images raises it

_CHUNK = 1000
_WORTH_PROCESSES = 10_000  # below this many images, starting processes takes longer than they save


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the dataset that is left out: a row of a label file, or (line 0) a whole file."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True)
class LabelIndex:
    """The readable images of a split and their boxes, n images and m boxes.

    `sizes` are height and width as displayed; `boxes` cx, cy, w, h as fractions of the image; those of image i are the
    rows `offsets[i]` to `offsets[i + 1]`. `fingerprint` is a hash of names, sizes and labels that does not depend on
    where the dataset lies.

    Where images lie in tar shards, a path is the shard's with the name in it behind, and `places` says for every image
    how many bytes of its path are the shard's, and its content's first byte there and length; all 0 for an image that
    is a file of its own. Without shards `places` is empty.
    """

    paths: bytes | memoryview
    path_offsets: Int64[np.ndarray, " n1"]
    places: Int64[np.ndarray, "_ 3"]
    sizes: Int32[np.ndarray, "n 2"]
    classes: Int32[np.ndarray, " m"]
    boxes: Float32[np.ndarray, "m 4"]
    offsets: Int64[np.ndarray, " n1"]
    problems: tuple[Problem, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, i: int) -> Path:
        """The file of image i."""
        return Path(os.fsdecode(bytes(self.paths[self.path_offsets[i] : self.path_offsets[i + 1]])))

    def file(self, i: int) -> Path:
        """The file on disk that holds image i: its own, or a shard."""
        return Path(os.fsdecode(shard)) if (shard := self._shard(i)) else self.path(i)

    def content(self, i: int) -> bytes:
        """Image i as it was encoded. Raises UserError where it cannot be read."""
        shard = self._shard(i)
        try:
            if not shard:
                return self.path(i).read_bytes()
            _, start, length = self.places[i].tolist()
            content = read_range(os.fsdecode(shard), start, length)
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=self.path(i)) from None
        if len(content) < length:
            raise UserError("the shard ends before it", where=self.path(i), fix="leave the dataset alone during a run")
        return content

    def _shard(self, i: int) -> bytes:
        """The path of the shard that image i lies in; empty where it is a file of its own."""
        start = self.path_offsets[i]
        return bytes(self.paths[start : start + self.places[i, 0]]) if len(self.places) else b""

    def labels(self, i: int) -> Float32[np.ndarray, "k 5"]:
        """The rows (class, cx, cy, w, h) of image i; the box as fractions of the image."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        table = np.empty((rows.stop - rows.start, 5), np.float32)
        table[:, 0] = self.classes[rows]
        table[:, 1:] = self.boxes[rows]
        return table

    def single_cls(self) -> "LabelIndex":
        """The same boxes, all of class 0."""
        merged = replace(self, classes=np.zeros_like(self.classes))
        return replace(merged, fingerprint=_fingerprint(merged))


def build_index(
    images: Sequence[str | Path],
    nc: int,
    *,
    strict: bool,
    cache_dir: Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> LabelIndex:
    """Read the sizes and labels of `images`, tar shards of images among them, or take them from the cache if unchanged.

    A missing or empty label file is background. Bad rows and unreadable images are left out and listed in `problems`;
    under `strict` any of them raises UserError. `workers` processes share the reading of large sets; `progress` is
    called with (images done, images in all). A cache folder that cannot be written is no error.
    """
    files = [os.fspath(image) for image in images]
    cache = None
    if cache_dir is not None:
        name = hashlib.blake2b("\0".join(files).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        cache = cache_dir / "labels" / f"{name}-{nc}.npz"
        key = _state_key(files)
        index = _load(cache, key)
    else:
        key, index = "", None
    if index is None:
        groups = _groups(files)
        index = _gather(groups, _scanned(groups, nc, workers), progress)
        if cache is not None:
            _save(cache, key, index)
    elif progress:
        progress(len(files), len(files))
    if strict and index.problems:
        first, count = index.problems[0], len(index.problems)
        where = f"{first.file}:{first.line}" if first.line else first.file
        raise UserError(
            f"{first.what} ({count} problem{'s' * (count > 1)} in all)",
            where=where,
            fix="mend it or leave out --strict",
        )
    if not len(index):
        first_line = f", first: {index.problems[0]}" if index.problems else ""
        raise UserError(f"none of {len(files)} images can be read{first_line}")
    return index


def _scan(files: Sequence[str], nc: int) -> ScanResult:
    return scan_shard(files[0], nc) if is_shard(files[0]) else scan_files(files, nc)


def _groups(files: Sequence[str]) -> list[Sequence[str]]:
    """What is scanned in one go: a shard, or neighboring files."""
    groups: list[Sequence[str]] = []
    for shards, part in itertools.groupby(files, is_shard):
        run, size = list(part), 1 if shards else _CHUNK
        groups += [run[start : start + size] for start in range(0, len(run), size)]
    return groups


def _scanned(groups: list[Sequence[str]], nc: int, workers: int) -> Iterator[ScanResult]:
    done = 0
    large = sum(map(len, groups)) >= _WORTH_PROCESSES or sum(is_shard(group[0]) for group in groups) > workers
    if workers > 1 and large:
        # A worker that is killed (memory) or cannot start (no `__main__` file) must not cost the user the run.
        with (
            contextlib.suppress(BrokenProcessPool, OSError),
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context()) as pool,
        ):
            for chunk in pool.map(_scan, groups, [nc] * len(groups)):
                done += 1
                yield chunk
    for group in groups[done:]:
        yield _scan(group, nc)


def _gather(
    groups: list[Sequence[str]], chunks: Iterable[ScanResult], progress: Callable[[int, int], None] | None
) -> LabelIndex:
    names: list[bytes] = []
    places, sizes, counts, classes, boxes = (bytearray() for _ in range(5))
    problems: list[Problem] = []
    done, files = 0, sum(map(len, groups))
    sharded = any(is_shard(group[0]) for group in groups)
    for group, chunk in zip(groups, chunks, strict=True):
        loose = [os.fsencode(file) for file in itertools.compress(group, chunk.kept)]
        names += loose or chunk.names
        if sharded:
            places += bytes(24 * len(loose)) + chunk.places.tobytes()
        sizes += chunk.sizes.tobytes()
        counts += chunk.counts.tobytes()
        classes += chunk.classes.tobytes()
        boxes += chunk.boxes.tobytes()
        problems.extend(Problem(*problem) for problem in chunk.problems)
        done += len(group)
        if progress:
            progress(done, files)
    index = LabelIndex(
        paths=b"".join(names),
        path_offsets=_offsets(np.array([len(name) for name in names], np.int64)),
        places=np.frombuffer(bytes(places), np.int64).reshape(-1, 3),
        sizes=np.frombuffer(bytes(sizes), np.int32).reshape(-1, 2),
        classes=np.frombuffer(bytes(classes), np.int32),
        boxes=np.frombuffer(bytes(boxes), np.float32).reshape(-1, 4),
        offsets=_offsets(np.frombuffer(bytes(counts), np.int64)),
        problems=tuple(problems),
        fingerprint="",
    )
    return replace(index, fingerprint=_fingerprint(index))


def _offsets(counts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n1"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _fingerprint(index: LabelIndex) -> str:
    digest = hashlib.sha256()
    folders = {os.path.dirname(name) for name in _names(index)}
    base = len(os.path.commonpath(folders)) if folders else 0
    for name in _names(index):
        relative = name[base:].replace(os.sep.encode(), b"/").lstrip(b"/")
        digest.update(relative + b"\0")
    for table in (index.sizes, index.offsets, index.classes, index.boxes):
        digest.update(np.ascontiguousarray(table, table.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _names(index: LabelIndex) -> Iterator[bytes]:
    for start, end in itertools.pairwise(index.path_offsets.tolist()):
        yield bytes(index.paths[start:end])


def _state_key(files: list[str]) -> str:
    """Changes when any image or label file is added, removed, resized or touched."""
    digest = hashlib.blake2b(f"{FORMAT}".encode(), digest_size=16)
    for file in files:
        for path in (file,) if is_shard(file) else (file, label_path(file)):
            try:
                state = os.stat(path)
                digest.update(b"%d %d;" % (state.st_size, state.st_mtime_ns))
            except OSError:
                digest.update(b"-;")
    return digest.hexdigest()


def _save(cache: Path, key: str, index: LabelIndex) -> None:
    problems = json.dumps([[p.file, p.line, p.what] for p in index.problems]).encode()
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cache) as part, open(part, "wb") as out:  # savez adds a suffix to a bare path
            np.savez(
                out,
                key=np.array(key),
                paths=np.frombuffer(index.paths, np.uint8),
                path_offsets=index.path_offsets,
                places=index.places,
                sizes=index.sizes,
                classes=index.classes,
                boxes=index.boxes,
                offsets=index.offsets,
                problems=np.frombuffer(problems, np.uint8),
                fingerprint=np.array(index.fingerprint),
            )


def _load(cache: Path, key: str) -> LabelIndex | None:
    """The cached index, or None where there is none, it is of another state of the files, or it is damaged."""
    try:
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                return None
            index = LabelIndex(
                paths=kept["paths"].tobytes(),
                path_offsets=kept["path_offsets"],
                places=kept["places"],
                sizes=kept["sizes"],
                classes=kept["classes"],
                boxes=kept["boxes"],
                offsets=kept["offsets"],
                problems=tuple(Problem(*problem) for problem in json.loads(kept["problems"].tobytes() or b"[]")),
                fingerprint=str(kept["fingerprint"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile):
        return None
    return index if index.fingerprint == _fingerprint(index) else None
