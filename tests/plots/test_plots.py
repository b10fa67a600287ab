import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from yolo_cli.plots import (
    class_color,
    confusion_figure,
    curve_figure,
    draw_boxes,
    image_grid,
    label_figure,
    pr_figure,
    results_figure,
    training,
)
from yolo_cli.train.optim import GROUPS

HEADER = (
    "epoch,train/box_loss,train/obj_loss,train/cls_loss,metrics/precision,metrics/recall,metrics/mAP_0.5,"
    "metrics/mAP_0.5:0.95,val/box_loss,val/obj_loss,val/cls_loss,x/lr0,x/lr1,x/lr2\n"
)
ROW = "{},0.05,0.04,0.03,0.5,0.4,0.45,0.3,0.06,0.05,0.04,0.01,0.01,0.1\n"


def drawn_fraction(path: Path) -> float:
    """Fraction of the image that differs from its background."""
    image = cv2.imread(str(path))
    assert image is not None
    assert min(image.shape[:2]) > 200
    return float((np.abs(image.astype(int) - image[0, 0]).sum(axis=2) > 60).mean())


def text_pixels(image: np.ndarray) -> int:
    """Number of pixels of white text."""
    return int((image > 180).all(axis=2).sum())


def names(count: int) -> list[str]:
    return [f"class number {i}" for i in range(count)]


@pytest.mark.parametrize(
    "table",
    [
        HEADER + "".join(ROW.format(i) for i in range(30)),
        HEADER + ROW.format(0),
        HEADER,
        "",
        HEADER + ROW.format(0) + "1,nan,inf,,oops",
        "epoch, x/lr0\n0, 0.01\n",
    ],
    ids=["thirty epochs", "one epoch", "no epoch", "empty file", "broken last line", "other columns"],
)
def test_results(table: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(table)
    results_figure(tmp_path / "results.csv", tmp_path / "results.png")
    assert drawn_fraction(tmp_path / "results.png") > 0.005


def test_results_have_a_curve_for_recorded_values(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(HEADER)
    results_figure(tmp_path / "results.csv", tmp_path / "empty.png")
    (tmp_path / "results.csv").write_text(HEADER + "".join(ROW.format(i) for i in range(30)))
    results_figure(tmp_path / "results.csv", tmp_path / "full.png")
    blue = np.array(class_color(0)[::-1])
    shows = [(cv2.imread(str(tmp_path / f)) == blue).all(axis=2).any() for f in ("empty.png", "full.png")]
    assert shows == [False, True]


def test_learning_rates_are_named_by_their_parameter_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.csv").write_text(HEADER + ROW.format(0))
    figures: list[Figure] = []
    monkeypatch.setattr(training, "save", lambda figure, out: figures.append(figure))
    results_figure(tmp_path / "results.csv", tmp_path / "results.png")
    (panel,) = [axes for axes in figures[0].axes if axes.get_title() == "Learning rate"]
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(GROUPS)


@pytest.mark.parametrize("classes", [1, 3, 80, 300])
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_label_index(classes: int, count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_figure(rng.integers(0, classes, count), rng.random((count, 4)), names(classes), tmp_path / "labels.jpg")
    assert drawn_fraction(tmp_path / "labels.jpg") > 0.005


@pytest.mark.parametrize("classes", [1, 3, 80, 300])
def test_confusion(classes: int, tmp_path: Path) -> None:
    confusion = np.random.default_rng(0).integers(0, 50, (classes + 1, classes + 1))
    confusion[:, 0] = 0
    confusion_figure(confusion, names(classes), tmp_path / "confusion_matrix.png")
    assert drawn_fraction(tmp_path / "confusion_matrix.png") > 0.01


def test_confusion_without_values(tmp_path: Path) -> None:
    confusion_figure(np.zeros((4, 4), dtype=np.int64), names(3), tmp_path / "confusion_matrix.png")
    assert drawn_fraction(tmp_path / "confusion_matrix.png") > 0.005


@pytest.mark.parametrize("classes", [0, 1, 3, 80])
@pytest.mark.parametrize("unknown", [False, True], ids=["predictions", "no predictions"])
def test_curves(classes: int, unknown: bool, tmp_path: Path) -> None:
    grid = np.linspace(0, 1, 1000)
    values = np.random.default_rng(0).random((classes, 1000))
    values[:, 500:] = np.nan
    values[:, : 500 * unknown] = np.nan
    curve_figure(grid, values, names(classes), tmp_path / "P_curve.png", quantity="Precision")
    assert drawn_fraction(tmp_path / "P_curve.png") > 0.005


@pytest.mark.parametrize("classes", [0, 1, 3, 80])
def test_precision_recall_curve(classes: int, tmp_path: Path) -> None:
    values = np.sort(np.random.default_rng(0).random((classes, 101)))[:, ::-1].copy()
    pr_figure(np.linspace(0, 1, 101), values, names(classes), tmp_path / "PR_curve.png")
    assert drawn_fraction(tmp_path / "PR_curve.png") > 0.005


@pytest.mark.parametrize("name", ["$x", r"$\frac{", "a_b^c", "x" * 300, ""])
def test_special_characters_in_names(name: str, tmp_path: Path) -> None:
    label_figure(np.zeros(3, dtype=np.int64), np.full((3, 4), 0.5), [name], tmp_path / "labels.jpg")
    confusion_figure(np.ones((2, 2), dtype=np.int64), [name], tmp_path / "confusion_matrix.png")
    pr_figure(np.linspace(0, 1, 101), np.ones((1, 101)), [name], tmp_path / "PR_curve.png")
    assert drawn_fraction(tmp_path / "PR_curve.png") > 0.005


@pytest.mark.parametrize("count", [0, 1, 5, 16, 20])
@pytest.mark.parametrize("size", [(64, 64), (640, 384), (480, 1280)])
def test_image_grid(count: int, size: tuple[int, int], tmp_path: Path) -> None:
    images = torch.randint(0, 255, (count, 3, *size), dtype=torch.uint8)
    boxes = [torch.tensor([[1, 5, 5, 60, 60, 0.9], [0, -9, -9, 9999, 30, 0.5]]) for _ in range(count)]
    captions = [f"{i:012}.jpg" for i in range(count)]
    image_grid(images, boxes, names(2), tmp_path / "grid.jpg", captions=captions)
    grid = cv2.imread(str(tmp_path / "grid.jpg"))
    assert grid is not None
    assert grid.shape[1] <= 1920
    assert grid.std() > 1


def test_grid_shows_each_image_in_its_colors(tmp_path: Path) -> None:
    images = torch.zeros(4, 3, 100, 100, dtype=torch.uint8)
    for i, color in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]):
        images[i] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    image_grid(images, [torch.zeros(0, 5)] * 4, [], tmp_path / "grid.png")
    grid = cv2.imread(str(tmp_path / "grid.png"))[..., ::-1]
    assert [tuple(grid[y, x].tolist()) for y, x in ((50, 50), (50, 160), (160, 50), (160, 160))] == [
        (250, 0, 0),
        (0, 250, 0),
        (0, 0, 250),
        (250, 250, 0),
    ]


def test_boxes_below_the_confidence_threshold_are_not_drawn(tmp_path: Path) -> None:
    images = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    for name, confidence in (("above", 0.3), ("below", 0.2)):
        image_grid(images, [torch.tensor([[0, 50, 50, 90, 90, confidence]])], names(1), tmp_path / f"{name}.png")
    assert cv2.imread(str(tmp_path / "below.png"))[10:-10, 10:-10].max() == 0
    assert cv2.imread(str(tmp_path / "above.png"))[10:-10, 10:-10].max() > 0


def test_unwritable_grid(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        image_grid(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [torch.zeros(0, 5)], [], tmp_path / "no" / "grid.jpg")


def test_draw_boxes_draws_edges_on_a_copy() -> None:
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    drawn = draw_boxes(image, torch.tensor([[1.0, 100, 100, 300, 200]]), names(3))
    assert not image.any()
    assert tuple(drawn[150, 100]) == tuple(drawn[200, 250]) == class_color(1)
    assert not drawn[150, 200].any()


@pytest.mark.parametrize("box", [(0, 0, 9, 9), (395, 295, 399, 299), (-50, -50, -10, -10), (390, 0, 500, 500)])
def test_labels_are_inside_the_image(box: tuple[int, ...]) -> None:
    blank = np.zeros((300, 400, 3), dtype=np.uint8)
    drawn = draw_boxes(blank, torch.tensor([[0.0, *box]]), ["name"])
    inner = draw_boxes(blank, torch.tensor([[0.0, 150, 150, 159, 159]]), ["name"])
    assert text_pixels(drawn) == text_pixels(inner) > 0


def test_labels_do_not_cover_each_other() -> None:
    blank = np.zeros((400, 400, 3), dtype=np.uint8)
    rows = torch.tensor([[0.0, 100, 100, 300, 300], [0.0, 102, 101, 301, 302]])
    assert text_pixels(draw_boxes(blank, rows, ["a name"])) == 2 * text_pixels(draw_boxes(blank, rows[:1], ["a name"]))


def test_boxes_that_are_not_finite_are_left_out() -> None:
    blank = np.zeros((300, 400, 3), dtype=np.uint8)
    assert not draw_boxes(blank, torch.tensor([[0.0, float("nan"), 0, 9, 9]]), ["a"]).any()


def test_colors_differ() -> None:
    assert len({class_color(i) for i in range(80)}) == 80
    assert all(0 <= channel <= 255 for i in range(1000) for channel in class_color(i))


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("import sys, yolo_cli.plots; print('matplotlib.pyplot' in sys.modules)", "False"),
        ("import sys, yolo_cli.evaluation.evaluator; print('matplotlib' in sys.modules)", "False"),
    ],
    ids=["figures without pyplot", "evaluator without matplotlib"],
)
def test_imports(code: str, answer: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == answer
