"""Whatever is in an annotation file, it is read or refused in one line, and every box is inside its image's range."""

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataset.formats.conftest import Drawn
from tests.dataset.formats.drawn_files import coco_document, cvat_document, labelme_document, voc_document
from yolo_cli.dataset.annotated_index import AnnotationSource, build_annotated_index
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder with the images a.jpg and b.jpg (64×48), shared by the tests of this file."""
    place = Path(tempfile.mkdtemp())
    for name in ("a", "b"):
        cv2.imwrite(str(place / f"{name}.jpg"), np.zeros((48, 64, 3), np.uint8))
    return place


def read(folder: Path, suffix: str, content: bytes) -> None:
    file = folder / f"a{suffix}"
    file.write_bytes(content)
    try:
        source = AnnotationSource(str(file), (str(file),), (str(folder),))
        found = build_annotated_index(source, cache_dir=None, reporter=Silent())
    except UserError as error:
        assert str(file) in str(error) or "categories" in str(error)
        return
    finally:
        file.unlink()
    index = found.index
    assert ((index.boxes >= 0) & (index.boxes <= 1)).all()
    assert (index.boxes[:, 2:] > 0).all()
    assert ((index.classes >= 0) & (index.classes < len(found.names))).all()
    assert len(index.boxes) == index.offsets[-1]


def documents() -> dict[str, bytes]:
    """A valid file per format, by suffix and format."""
    drawn = [Drawn(Path(f"{name}.jpg"), (48, 64), ((0, 1, 2, 30, 40), (2, 5, 5, 9, 9))) for name in ("a", "b")]
    return {
        "coco.json": json.dumps(coco_document(drawn)).encode(),
        "labelme.json": json.dumps(labelme_document(drawn[0])).encode(),
        "voc.xml": voc_document(drawn[0]).encode(),
        "cvat.xml": cvat_document(drawn).encode(),
    }


VALID = documents()
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("a.jpg"),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", VALID)
def test_the_unchanged_file_is_read(name: str, folder: Path) -> None:
    read(folder, Path(name).suffix, VALID[name])


@pytest.mark.parametrize("name", VALID)
@given(data=st.data())
@settings(max_examples=60)
def test_damaged_files(name: str, folder: Path, data: st.DataObject) -> None:
    content = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    read(folder, Path(name).suffix, bytes(content))


@pytest.mark.parametrize("name", ["coco.json", "labelme.json"])
@given(data=st.data())
@settings(max_examples=80)
def test_values_of_other_types(name: str, folder: Path, data: st.DataObject) -> None:
    document = json.loads(VALID[name])
    part = document
    for _ in range(data.draw(st.integers(0, 4))):
        if not isinstance(part, dict | list) or not part:
            break
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if isinstance(part[key], dict | list) and data.draw(st.booleans()):
            part = part[key]
        else:
            part[key] = data.draw(_json)
    read(folder, ".json", json.dumps(document).encode())
