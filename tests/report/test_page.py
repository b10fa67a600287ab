"""The page: hostile names, empty cases, its size, links, and images that are gone."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.evaluations import data_of, saved_of
from tests.report.reading import Page, check
from yolo_cli.errors import UserError
from yolo_cli.evaluation.saved_evaluation import SavedEvaluation
from yolo_cli.progress import Silent
from yolo_cli.report.write import write_report

BOX = (10.0, 10.0, 40.0, 40.0)
FAR = (120.0, 50.0, 20.0, 20.0)
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "</title></style></script>",
    "&lt;b&gt; &amp;",
    "猫 кот \u202egpj.exe",
    "long " * 300,
)


def report(saved: SavedEvaluation, folder: Path, **options: object) -> Page:
    folder.mkdir(exist_ok=True)
    path = write_report(folder, saved, resamples=100, reporter=Silent(), **options)  # type: ignore[arg-type]
    return check(path.read_text(encoding="utf-8"))


def test_hostile_names_are_text(tmp_path: Path) -> None:
    count = len(HOSTILE)
    truth = [(i, i, BOX) for i in range(count)]
    found = [(i, i, BOX, 0.9) for i in range(count)]
    found += [(i, (i + 1) % count, BOX, 0.8) for i in range(count)] + [(i, i, FAR, 0.7) for i in range(count)]
    files = [f"{name.replace('/', '')[:100]}{i}.jpg" for i, name in enumerate(HOSTILE)]
    saved = saved_of(data_of(truth, found, images=count), HOSTILE, tmp_path / "images", files)
    page = report(saved, tmp_path / "<b>run")
    assert page.count("script") == 1
    assert page.count("img") == page.count("b") == 0
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    for name in HOSTILE[:3]:
        assert name in page.text
    assert "\u202e" not in page.html
    assert "49" not in [word for word in page.text.split() if word == "49"]
    assert "long " * 50 not in page.html  # shortened


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    data = data_of([(0, 0, BOX)], [(0, 0, FAR, 0.9)])
    saved = saved_of(data, ["a"], tmp_path / "images", ["\udcff.jpg"])
    assert "\\udcff.jpg" in report(saved, tmp_path / "run").text


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("case", ["no predictions", "no boxes", "neither", "all correct", "all wrong"])
def test_empty_cases(case: str, classes: int, images: int, tmp_path: Path) -> None:
    boxes = [(i, i % classes, BOX) for i in range(images)]
    found = [(i, i % classes, BOX if case == "all correct" else FAR, 0.9) for i in range(images)]
    data = data_of(
        [] if case in ("no boxes", "neither") else boxes, [] if case in ("no predictions", "neither") else found, images
    )
    page = report(saved_of(data, [f"class {i}" for i in range(classes)], tmp_path / "images"), tmp_path / "run")
    assert page.count("svg") > 0
    assert "nan" not in page.text.lower().split()
    if case == "all correct":
        assert "No image has a mistake at this threshold." in page.text
    if case in ("no boxes", "neither"):
        assert "The split has no boxes" in page.text


def test_images_that_were_moved_are_named(tmp_path: Path) -> None:
    saved = saved_of(data_of([(0, 0, BOX), (1, 0, BOX)], [(0, 0, FAR, 0.9)], 2), ["a"], tmp_path / "images")
    whole = report(saved, tmp_path / "run")
    assert "could not be read" not in whole.text
    Path(saved.paths[0]).unlink()
    Path(saved.paths[1]).write_bytes(b"no image")
    page = report(saved, tmp_path / "run")
    assert "2 of the images for this report could not be read" in page.text
    assert saved.paths[0] in page.text
    assert not page.all("image")


def test_an_image_of_another_size_is_not_drawn_on(tmp_path: Path) -> None:
    data = data_of([(0, 0, BOX)], [(0, 0, FAR, 0.9)])
    saved = saved_of(data, ["a"], tmp_path / "images")
    data.sizes[0] = (50, 50)
    assert "has changed its size" in report(saved, tmp_path / "run").text


def noisy(images: int, classes: int, boxes: int, seed: int = 0):
    """Random boxes, half of them found."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(images):
        for box in random.uniform([0, 0, 5, 5], [150, 60, 50, 40], (boxes, 4)).tolist():
            class_id = int(random.integers(classes))
            truth.append((image, class_id, tuple(box)))
            shifted = (box[0] + float(random.choice([0, 30])), *box[1:])
            found.append((image, int(random.choice([class_id, 0])), shifted, float(random.uniform(0.1, 1))))
    return data_of(truth, found, images)


def test_every_number_that_is_a_link_has_images(tmp_path: Path) -> None:
    saved = saved_of(noisy(60, 5, 6), list("abcde"), tmp_path / "images")
    page = report(saved, tmp_path / "run")
    cards = [set(a["data-tags"].split()) for a in page.all("li") if "data-tags" in a]
    assert sum("worst" in card for card in cards) == 50
    links = [a["data-open"].split("|") for a in page.all("a") if "data-open" in a]
    assert len(links) > 30
    for of_class, error, group in links:
        tag = f"{of_class}-{error}" if of_class and error else of_class or error or group or "worst"
        assert any(tag in card for card in cards), tag


@pytest.mark.slow
def test_five_thousand_classes_and_large_images_fit(tmp_path: Path) -> None:
    names = [f"class {i} <i>{'x' * 70}" for i in range(5000)]
    saved = saved_of(noisy(1000, 5000, 10), names, tmp_path / "images")
    page = report(saved, tmp_path / "run")
    assert "class 4999 <i>" in page.text
    assert page.count("image") > 50


def test_a_base_gives_changes_and_a_sentence(tmp_path: Path) -> None:
    truth = [(i, 0, BOX) for i in range(12)]
    good = saved_of(data_of(truth, [(i, 0, BOX, 0.9) for i in range(12)], 12), ["a"], tmp_path / "images")
    poor_data = data_of(truth, [(i, 0, BOX if i < 4 else FAR, 0.9) for i in range(12)], 12)
    poor = saved_of(poor_data, ["a"], tmp_path / "images")
    page = report(good, tmp_path / "good", base=poor, base_name="poor")
    assert "good is better than poor by" in page.text
    assert "Change (95%)" in page.text
    other = saved_of(data_of(truth, [], 12), ["a", "b"], tmp_path / "images")
    with pytest.raises(UserError, match="other images, labels or classes"):
        report(good, tmp_path / "good", base=other, base_name="other")


def test_the_base_may_have_its_images_in_another_order(tmp_path: Path) -> None:
    truth, found = [(0, 0, BOX), (1, 0, FAR), (2, 0, BOX)], [(0, 0, BOX, 0.9), (1, 0, FAR, 0.8), (2, 0, FAR, 0.7)]
    saved = saved_of(data_of(truth, found, 3), ["a"], tmp_path / "images")
    turned = {0: 2, 1: 0, 2: 1}
    moved = data_of([(turned[i], *row) for i, *row in truth], [(turned[i], *row) for i, *row in found], 3)  # type: ignore[misc]
    base = saved_of(moved, ["a"], tmp_path / "images")
    base.position[:] = [1, 2, 0]
    page = report(saved, tmp_path / "run", base=base, base_name="same")
    assert "no difference between run and same can be shown" in page.text
    assert "+0.0 (+0.0 to +0.0)" in page.text
