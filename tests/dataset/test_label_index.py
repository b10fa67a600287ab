import os
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.dataset import scan_pool
from yolo_cli.dataset.label_index import LabelIndex, build_index, label_path
from yolo_cli.dataset.yolo_labels import MAX_PROBLEMS, parse_labels, parse_row
from yolo_cli.errors import UserError


def read(text: bytes, nc: int = 3) -> tuple[list[int], np.ndarray, list[tuple[int, str]]]:
    classes, boxes, problems = array("i"), array("f"), []
    count, _ = parse_labels(text, nc, classes, boxes, problems)
    assert count == len(classes) == len(boxes) // 4
    return list(classes), np.array(boxes).reshape(-1, 4), problems


def index_of(images: list[Path], **changes) -> LabelIndex:
    options = {"nc": 3, "strict": False, "cache_dir": None, "workers": 0, "progress": None, **changes}
    return build_index(images, **options)


GOOD = b"1 0.5 0.5 0.2 0.3\n"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        pytest.param(b"1 0.5 0.5 0.2", "4 values", id="too few"),
        pytest.param(b"1 0.5 0.5 0.2 0.3 0.4", "6 values", id="six values"),
        pytest.param(b"1 0.5 0.5 0.2 0.3 0.4 0.5 0.6", "8 values", id="polygon with half a point"),
        pytest.param(b"1 0.5 x 0.2 0.3", "not a number: x", id="word"),
        pytest.param(b"1 0.5 nan 0.2 0.3", "not a number: nan", id="nan"),
        pytest.param(b"1 0.5 inf 0.2 0.3", "not a number: inf", id="inf"),
        pytest.param(b"nan 0.5 0.5 0.2 0.3", "not a number: nan", id="nan class"),
        pytest.param(b"1 0.5 0.5 0.2 1_0", "not a number: 1_0", id="Python's digit groups"),
        pytest.param(b"1 0.5 0.5 0.2 1.01", "1.01 is outside", id="above 1"),
        pytest.param(b"1 -0.5 0.5 0.2 0.3", "-0.5 is outside", id="below 0"),
        pytest.param(b"1 320 240 20 30", "320 is outside", id="pixels"),
        pytest.param(b"1 0.5 0.5 0 0.3", "without width", id="no width"),
        pytest.param(b"1 0.1 0.1 0.1 0.5 0.1 0.9", "without width or height", id="flat polygon"),
        pytest.param(b"-2 0.5 0.5 0.2 0.3", "negative", id="negative class"),
        pytest.param(b"0.5 0.5 0.5 0.2 0.3", "not a whole number", id="fractional class"),
        pytest.param(b"3 0.5 0.5 0.2 0.3", "class 3 is out of range for 3 classes", id="class too large"),
        pytest.param(GOOD.strip(), "duplicate", id="duplicate"),
        pytest.param(b"\xff\xfe1 0.5 0.5 0.2 0.3", "not a number", id="not text"),
    ],
)
def test_an_invalid_row_is_left_out_and_reported(row: bytes, what: str) -> None:
    classes, boxes, problems = read(GOOD + row + b"\n2 0.25 0.25 0.5 0.5\n")
    assert classes == [1, 2]
    np.testing.assert_allclose(boxes, [[0.5, 0.5, 0.2, 0.3], [0.25, 0.25, 0.5, 0.5]], rtol=1e-6)
    assert [line for line, _ in problems] == [2]
    assert what in problems[0][1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte order mark"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n\n" + GOOD + b"\n  \n", id="blank lines"),
        pytest.param(GOOD.strip(), id="no end of line"),
        pytest.param(GOOD.replace(b" ", b"\t "), id="tabs"),
        pytest.param(b"1.0 5e-1 0.5 0.2 0.3", id="floats"),
    ],
)
def test_harmless_variants_are_accepted(text: bytes) -> None:
    classes, boxes, problems = read(text)
    assert (classes, problems) == ([1], [])
    np.testing.assert_allclose(boxes, [[0.5, 0.5, 0.2, 0.3]], rtol=1e-6)


def test_polygon_becomes_its_bounding_box() -> None:
    classes, boxes, problems = read(b"2 0.1 0.2 0.5 0.3 0.3 0.8\n")
    assert (classes, problems) == ([2], [])
    np.testing.assert_allclose(boxes, [[0.3, 0.5, 0.4, 0.6]], rtol=1e-6)


def test_coordinates_rounded_beyond_the_edge_are_clipped() -> None:
    _, boxes, problems = read(b"0 0.5 0.5 1.00001 1.0\n0 -0.00001 0.5 0.1 0.1\n")
    assert problems == []
    assert boxes.max() == 1.0
    assert boxes.min() == 0.0


def test_beyond_a_limit_invalid_rows_are_only_counted() -> None:
    _, _, problems = read(b"x\n" * (MAX_PROBLEMS + 500))
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == (0, "500 more bad rows in this file")


@given(st.binary(max_size=300))
def test_any_bytes_give_boxes_or_problems(text: bytes) -> None:
    classes, boxes, _ = read(text)
    assert all(0 <= c < 3 for c in classes)
    assert ((boxes >= 0) & (boxes <= 1)).all()


_token = st.one_of(
    st.integers(-2, 5).map(str),
    st.floats(-0.2, 1.2).map(lambda v: f"{v:.5f}"),
    st.sampled_from(["nan", "1e999", "a", "1_0"]),
)


@given(st.lists(st.lists(_token, min_size=1, max_size=9).map(" ".join), max_size=6))
def test_every_row_is_kept_or_reported(rows: list[str]) -> None:
    classes, _, problems = read("\n".join(rows).encode())
    assert len(classes) + len(problems) == len(rows)
    bad = {line for line, _ in problems}
    for number, row in enumerate(rows, 1):
        complaint = parse_row(row.encode().split(), 3)
        assert number in bad if isinstance(complaint, str) else True


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/a.jpg", "/d/labels/a.txt"),
        ("/images/d/images/t/a.b.png", "/images/d/labels/t/a.b.txt"),
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
        ("/d/my_images/a.jpg", "/d/my_images/a.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert label_path(image.replace("/", os.sep)) == label.replace("/", os.sep)


def test_index_contains_sizes_boxes_and_problems(make_images) -> None:
    images = make_images(
        [(40, 60), (30, 20), (50, 50), (20, 20)], ["0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n", None, "", "2 .1 .1 .1 .1"]
    )
    images[1].write_bytes(b"")
    index = index_of(images)
    assert [index.path(i) for i in range(len(index))] == [images[0], images[2], images[3]]
    assert index.sizes.tolist() == [[40, 60], [50, 50], [20, 20]]
    assert [len(index.labels(i)) for i in range(3)] == [1, 0, 1]
    np.testing.assert_allclose(index.labels(2), [[2, 0.1, 0.1, 0.1, 0.1]], rtol=1e-6)
    assert [(Path(p.file).name, p.line) for p in index.problems] == [("000.txt", 2), ("001.jpg", 0)]


def test_strict_raises_the_first_problem(make_images) -> None:
    images = make_images([(20, 20)], ["0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n"])
    with pytest.raises(UserError, match=r"000\.txt:2: class 7 .*1 problem in total"):
        index_of(images, strict=True)


def test_no_readable_image_is_an_error(make_images) -> None:
    images = make_images([(20, 20)])
    images[0].write_bytes(b"not an image")
    with pytest.raises(UserError, match="none of 1 images can be read"):
        index_of(images)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_devices_and_pipes_are_not_read(make_images, tmp_path: Path) -> None:
    image, labelled = make_images([(20, 20), (20, 20)])
    for pipe in (tmp_path / "data/images/pipe.jpg", label := tmp_path / "data/labels/001.txt"):
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
    index = index_of([image, labelled, tmp_path / "data/images/pipe.jpg", Path("/dev/zero")])
    assert len(index) == 2
    assert len(index.labels(1)) == 0
    assert [problem.what for problem in index.problems] == ["is a device, a pipe or a folder, not a file"] * 2
    assert label.is_fifo()


def test_listed_but_missing_file_is_a_problem(make_images, tmp_path: Path) -> None:
    index = index_of([*make_images([(20, 20)]), tmp_path / "gone.jpg"])
    assert len(index) == 1
    assert "No such file" in index.problems[0].what


def test_single_cls(make_images) -> None:
    index = index_of(make_images([(20, 20)]))
    single = index.single_cls()
    assert single.classes.tolist() == [0, 0]
    assert index.classes.tolist() == [0, 1]
    assert single.fingerprint != index.fingerprint


def test_fingerprint_depends_on_content_not_on_location(make_images, tmp_path: Path) -> None:
    images = make_images([(20, 20), (30, 20)])
    index = index_of(images)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / "images" / image.name for image in images]
    assert index_of(moved).fingerprint == index.fingerprint
    (tmp_path / "elsewhere" / "labels" / "001.txt").write_text("0 .5 .5 .1 .2")
    assert index_of(moved).fingerprint != index.fingerprint


class TestCache:
    @staticmethod
    def count_scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
        scans: list[int] = []
        scan = scan_pool._scan
        monkeypatch.setattr(scan_pool, "_scan", lambda files, nc: (scans.append(len(files)), scan(files, nc))[1])
        return scans

    def test_unchanged_files_are_scanned_once(self, make_images, own_cache: Path, monkeypatch) -> None:
        scans = self.count_scans(monkeypatch)
        images = make_images([(20, 20), (30, 20)], ["9 .5 .5 .1 .1", None])
        first, second = (index_of(images, cache_dir=own_cache) for _ in range(2))
        assert scans == [2]
        assert first.fingerprint == second.fingerprint
        assert first.problems == second.problems
        assert first.path(1) == second.path(1)

    @pytest.mark.parametrize("change", ["label edited", "label added", "image replaced"])
    def test_any_change_is_detected(self, change: str, make_images, own_cache: Path, monkeypatch) -> None:
        images = make_images([(20, 20), (30, 20)], ["0 .5 .5 .1 .1", None])
        before = index_of(images, cache_dir=own_cache)
        labels = images[0].parent.parent / "labels"
        if change == "label edited":
            (labels / "000.txt").write_text("1 .5 .5 .1 .1")
            os.utime(labels / "000.txt", ns=(1, 1))
        elif change == "label added":
            (labels / "001.txt").write_text("1 .5 .5 .1 .1")
        else:
            make_images([(24, 20)], ["0 .5 .5 .1 .1"])
        assert index_of(images, cache_dir=own_cache).fingerprint != before.fingerprint

    def test_damaged_cache_is_rebuilt(self, make_images, own_cache: Path) -> None:
        images = make_images([(20, 20)])
        before = index_of(images, cache_dir=own_cache)
        (file,) = (own_cache / "labels").iterdir()
        whole = file.read_bytes()
        for damaged in (b"", b"junk", whole[: len(whole) // 2], whole.replace(b"paths.npy", b"pathz.npy")):
            file.write_bytes(damaged)
            assert index_of(images, cache_dir=own_cache).fingerprint == before.fingerprint
        assert [entry.name for entry in (own_cache / "labels").iterdir()] == [file.name]

    def test_cache_folder_that_cannot_be_written_is_not_an_error(self, make_images, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        assert len(index_of(make_images([(20, 20)]), cache_dir=tmp_path / "file")) == 1

    def test_nothing_is_written_to_the_users_folder(self, make_images, own_cache: Path, tmp_path: Path) -> None:
        images = make_images([(20, 20)])
        before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "data").rglob("*"))
        index_of(images, cache_dir=own_cache)
        assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "data").rglob("*")) == before


def test_several_processes_build_the_same_index(make_images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_pool, "_MIN_IMAGES_FOR_PROCESSES", 1)
    monkeypatch.setattr(scan_pool, "_IMAGES_PER_SCAN", 2)
    images = make_images([(20, 20)] * 7, ["0 .5 .5 .1 .1\n8 0 0 0 0"] * 7)
    calls: list[tuple[int, int]] = []
    shared = index_of(images, workers=2, progress=lambda done, total: calls.append((done, total)))
    alone = index_of(images)
    assert replace(shared, problems=()).fingerprint == alone.fingerprint
    assert shared.problems == alone.problems
    assert calls == [(2, 7), (4, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize(("split", "boxes", "background"), [("train2017", 929, 2), ("val2017", 898, 0)])
def test_coco128(split: str, boxes: int, background: int, reference: Path) -> None:
    images = sorted((reference / "datasets" / "coco128" / "images" / split).glob("*.jpg"))
    index = index_of(images, nc=80)
    assert (len(index), len(index.boxes)) == (128, boxes)
    without = [index.path(i).stem[-3:] for i in range(128) if not len(index.labels(i))]
    if background:
        assert without == ["250", "508"]
    assert all(problem.what == "duplicate row" for problem in index.problems)
