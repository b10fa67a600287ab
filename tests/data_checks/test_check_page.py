"""check.html: every finding with its places, thumbnails, and nothing from elsewhere."""

import shutil
from pathlib import Path

from tests.data_checks.conftest import Dataset, photo
from tests.report.reading import check


def page_of(dataset: Dataset, folder: Path) -> str:
    dataset.check(html=True, project=str(folder / "runs"))
    return (folder / "runs/check/check.html").read_text(encoding="utf-8")


def test_the_page_of_a_sound_dataset(dataset: Dataset, tmp_path: Path) -> None:
    page = check(page_of(dataset, tmp_path))
    assert "Nothing was found." in page.text


def test_findings_have_sections_and_pictures(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copy(dataset.image("train", "3.jpg"), dataset.image("val", "other.jpg"))
    dataset.add("val", "<b>copy.jpg", photo(5), ("0 0.5 0.5 1 1", "7 0.5 0.5 0.1 0.1"))
    dataset.image("train", "7.jpg").write_bytes(b"")
    page = check(page_of(dataset, tmp_path))
    for text in ("2 images are in train and in val", "1 image that cannot be read", "class 7 is out of range"):
        assert text in page.text
    assert "<b>copy.jpg" in page.text
    assert page.count("b") == 0  # the file name is text, not an element
    pictures = [attributes for attributes in page.all("svg") if attributes.get("class") == "picture"]
    assert len(pictures) == 2 + 2 + 1  # two leaks, and the box


def test_an_image_that_is_gone_is_named(dataset: Dataset, tmp_path: Path) -> None:
    dataset.label("val", "100.jpg", "0 0.5 0.5 1 1")
    data = dataset.image("val", "100.jpg").read_bytes()
    dataset.image("val", "100.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    page = check(page_of(dataset, tmp_path))
    assert "premature end" in page.text
