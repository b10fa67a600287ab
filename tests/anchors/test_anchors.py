import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recording import Recording
from yolo_cli.anchors.autoanchor import check_anchors, per_scale
from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import drop_tiny, score, training_sizes
from yolo_cli.commands.anchors import run
from yolo_cli.commands.train import run as train
from yolo_cli.config import AnchorsConfig, TrainConfig
from yolo_cli.dataset.label_index import LabelIndex, build_index
from yolo_cli.dataset.spec import load_spec, prepare, split_files
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.model.architecture import find_architecture, read_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent

ROWS = [
    f"coco128 {split} n={n} img={img}"
    for split in ("train2017", "val2017")
    for n, img in ((9, 640), (9, 320), (6, 416), (12, 1280))
]
side = st.floats(2, 600)
some_sizes = st.lists(st.tuples(side, side), min_size=1, max_size=40).map(np.array)


def coco(reference: Path, split: str) -> LabelIndex:
    spec = load_spec(str(reference / "datasets/coco128/data.yaml"))
    images = split_files(spec, split)
    return build_index(images, spec.nc, strict=False, cache_dir=None, workers=0, progress=None)


def ratio(size: np.ndarray, anchor: np.ndarray) -> float:
    """The side ratio by its definition."""
    (w, h), (a, b) = size, anchor
    return min(w / a, a / w, h / b, b / h)


@given(some_sizes, st.integers(1, 5), st.floats(1.5, 8))
def test_score_equals_its_definition(sizes: np.ndarray, n: int, thr: float) -> None:
    anchors = np.geomspace(5, 300, n)[:, None] * np.array([[1.0, 1.3]])
    table = [[ratio(size, anchor) for anchor in anchors] for size in sizes]
    best = [max(row) for row in table]
    found = score(sizes, anchors, thr)
    assert found.fitness == pytest.approx(np.mean([b * (b > 1 / thr) for b in best]), abs=1e-9)
    assert found.best_possible_recall == pytest.approx(np.mean([b > 1 / thr for b in best]))
    assert found.anchors_above_threshold == pytest.approx(np.mean([sum(r > 1 / thr for r in row) for row in table]))


@pytest.mark.parametrize("row", ROWS)
def test_fitness_is_at_least_that_of_the_published_fitter(reference: Path, row: str) -> None:
    floor = json.loads((reference / "reference/anchors.json").read_text())[row]
    n, img = (int(part.split("=")[1]) for part in row.split()[2:])
    index = coco(reference, "train" if "train" in row else "val")
    sizes = drop_tiny(training_sizes(index, (img, img)))
    found = score(sizes, fit_anchors(sizes, n, thr=4.0), 4.0)
    assert found.fitness >= floor["fitness"]
    assert found.best_possible_recall >= floor["bpr"]
    theirs = score(sizes, np.array(floor["anchors"]), 4.0)
    assert theirs.fitness == pytest.approx(
        floor["fitness"], abs=1e-3
    )  # our score of the published anchors is the published one


@pytest.mark.parametrize("seed", range(4))
def test_fitness_is_at_least_that_of_a_grid_search(seed: int) -> None:
    """Two anchors for twelve boxes, compared with all pairs on a fine grid."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(np.log(5), np.log(300), (12, 2)))
    grid = np.exp(np.stack(np.meshgrid(*(np.linspace(np.log(5), np.log(300), 26),) * 2), -1).reshape(-1, 2))
    away = np.abs(np.log(sizes)[:, None] - np.log(grid)).max(2)
    value = np.where(away < np.log(4), np.exp(-away), 0)
    best = max(np.maximum(value[:, [i]], value[:, i:]).mean(0).max() for i in range(len(grid)))
    assert score(sizes, fit_anchors(sizes, 2, thr=4.0), 4.0).fitness >= best - 1e-3


@settings(max_examples=15, deadline=None)
@given(some_sizes, st.integers(1, 12), st.randoms(use_true_random=False))
def test_n_anchors_for_any_order_of_boxes(sizes: np.ndarray, n: int, shuffler: object) -> None:
    order = list(range(len(sizes)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    anchors = fit_anchors(sizes, n, thr=4.0, generations=2)
    assert anchors.shape == (n, 2)
    assert np.isfinite(anchors).all()
    assert (anchors > 0).all()
    assert (np.diff(anchors.prod(1)) >= 0).all()
    np.testing.assert_array_equal(anchors, fit_anchors(sizes[order], n, thr=4.0, generations=2))


def test_identical_boxes_have_perfect_fitness() -> None:
    sizes = np.full((50, 2), (40.0, 30.0))
    anchors = fit_anchors(sizes, 9, thr=4.0)
    assert len(anchors) == 9
    assert score(sizes, anchors, 4.0).fitness == pytest.approx(1.0, abs=1e-3)


def test_clusters_are_found() -> None:
    random = np.random.default_rng(0)
    centers = np.array([[10, 10], [30, 60], [200, 90]])
    sizes = np.concatenate([c * np.exp(random.normal(0, 0.05, (200, 2))) for c in centers])
    np.testing.assert_allclose(fit_anchors(sizes, 3, thr=4.0), centers, rtol=0.05)


@pytest.mark.slow
def test_binning_of_many_boxes_costs_little_fitness() -> None:
    random = np.random.default_rng(1)
    sizes = np.exp(random.normal(4, 0.8, (60_000, 2)))
    few = score(sizes, fit_anchors(sizes[:4000], 9, thr=4.0), 4.0)
    many = score(sizes, fit_anchors(sizes, 9, thr=4.0, generations=10), 4.0)
    assert many.fitness > few.fitness - 2e-3


def test_no_boxes_are_an_error() -> None:
    with pytest.raises(UserError, match="no boxes"):
        fit_anchors(np.zeros((0, 2)), 9, thr=4.0)


def test_anchors_are_divided_among_scales_by_size() -> None:
    anchors = np.array([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    assert per_scale(anchors, 2, (8, 16)) == ((1, 1, 2, 2), (3, 3, 4, 4))
    assert per_scale(anchors, 2, (16, 8)) == ((3, 3, 4, 4), (1, 1, 2, 2))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> LabelIndex:
    patch = pytest.MonkeyPatch()
    patch.setenv("YOLO_CACHE_DIR", str(tmp_path_factory.mktemp("shapes")))
    spec = prepare(load_spec("shapes"), Silent())
    index = build_index(split_files(spec, "train"), 3, strict=True, cache_dir=None, workers=0, progress=None)
    patch.undo()
    return index


@pytest.mark.parametrize("img", [(160, 160), (96, 320)])
def test_sizes_are_those_of_the_letterboxed_image(shapes: LabelIndex, img: tuple[int, int]) -> None:
    sizes = training_sizes(shapes, img)
    rows = [(i, *row) for i in range(len(shapes)) for row in shapes.labels(i).tolist()]
    for (i, _, _, _, w, h), size in zip(rows[::50], sizes[::50], strict=True):
        height, width = shapes.sizes[i]
        gain = min(img[0] / height, img[1] / width)
        assert size == pytest.approx((w * width * gain, h * height * gain), rel=1e-5)


def test_check_anchors_replaces_only_anchors_that_do_not_match(shapes: LabelIndex) -> None:
    reporter = Recording()
    model = DetectionModel(find_architecture("n").with_classes(3))
    before = model.anchors_in_pixels()
    check_anchors(model, shapes, (160, 160), thr=4.0, seed=0, reporter=reporter)
    assert model.anchors_in_pixels() == before
    assert not reporter.lines

    tiny = tuple(tuple(v / 40 for v in scale) for scale in before)
    model.set_anchors(tiny)
    check_anchors(model, shapes, (160, 160), thr=4.0, seed=0, reporter=reporter)
    (line,) = reporter.lines
    assert "fitted anchors are used" in line
    areas = [np.reshape(scale, (-1, 2)).prod(1).mean() for scale in model.anchors_in_pixels()]
    assert areas == sorted(areas)
    np.testing.assert_allclose(model.architecture.anchors, model.anchors_in_pixels(), rtol=1e-5)

    model.set_anchors(tuple(tuple(scale) for scale in before[::-1]))
    check_anchors(model, shapes, (160, 160), thr=4.0, seed=0, reporter=reporter)
    assert "their order is reversed" in reporter.lines[1]
    np.testing.assert_allclose(model.anchors_in_pixels(), before, rtol=1e-5)


@pytest.mark.slow
def test_fitted_anchors_are_saved_and_used_in_training(tmp_path: Path) -> None:
    saved = tmp_path / "mine.yaml"
    options = {"data": "shapes", "img": (64, 64), "project": str(tmp_path / "runs"), "workers": 0}
    anchors = run(AnchorsConfig(cfg="n", save=str(saved), **options), Silent())  # type: ignore[arg-type]
    written = json.loads((tmp_path / "runs/exp/anchors.json").read_text())
    np.testing.assert_allclose(written["anchors"], anchors)
    assert (tmp_path / "runs/exp/anchors.png").stat().st_size > 10_000
    own = read_architecture(saved).anchors
    assert isinstance(own, tuple)
    assert [list(scale) for scale in own] == read_mapping(tmp_path / "runs/exp/anchors.yaml")["anchors"]
    result = train(
        TrainConfig(cfg=str(saved), epochs=1, batch=64, noplots=True, device="cpu", **options),  # type: ignore[arg-type]
        Silent(),
    )
    np.testing.assert_allclose(read_mapping(result.folder / "model.yaml")["anchors"], own, rtol=1e-5)
    with pytest.raises(UserError, match="not overwritten"):
        run(AnchorsConfig(cfg="n", save=str(saved), **options), Silent())  # type: ignore[arg-type]


def test_invalid_options_are_refused() -> None:
    for changes in (
        {"n": -1},
        {"thr": 1.0},
        {"gen": -1},
        {"task": "all"},
        {"weights": "a", "cfg": "b"},
        {"img": (0, 5)},
    ):
        with pytest.raises(UserError):
            run(AnchorsConfig(data="shapes", **changes), Silent())  # type: ignore[arg-type]


def test_a_count_that_scales_cannot_share_is_fitted_but_not_saved(tmp_path: Path) -> None:
    for n in (1, 7):
        config = AnchorsConfig(data="shapes", n=n, project=str(tmp_path), workers=0, gen=2)
        assert run(config, Silent()).shape == (n, 2)
        with pytest.raises(UserError, match="cannot be divided"):
            run(AnchorsConfig(data="shapes", n=n, save=str(tmp_path / "x.yaml")), Silent())
