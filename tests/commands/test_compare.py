"""`yolo compare` on real detections, against a bootstrap of its own that pycocotools scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.recording import Recording
from yolo_cli.commands import train, val
from yolo_cli.commands.compare import run, verdict
from yolo_cli.config import CompareConfig, TrainConfig, ValConfig
from yolo_cli.errors import UserError
from yolo_cli.evaluation.coco_json import COCO_CATEGORY_IDS
from yolo_cli.evaluation.comparison import Difference
from yolo_cli.evaluation.pycocotools_check import coco_precision
from yolo_cli.progress import Silent

METRIC = "mAP_0.5:0.95"


@pytest.fixture
def detections(reference: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    return reference / "reference/detections/coco128_val2017_yolov5n.json"


def weaker(detections: Path, out: Path, noise: float, seed: int = 0) -> Path:
    """The same detections with confidences that are disturbed."""
    random = np.random.default_rng(seed)
    rows = json.loads(detections.read_text())
    for row in rows:
        row["score"] = float(row["score"] * np.exp(random.normal(0, noise)))
    out.write_text(json.dumps(rows))
    return out


def compared(capsys: pytest.CaptureFixture[str], *recipes: Path, **options: object) -> dict:
    config = CompareConfig(tuple(map(str, recipes)), data="coco128", json=True, **options)  # type: ignore[arg-type]
    run(config, Silent())
    return json.loads(capsys.readouterr().out)


def test_scores_are_those_of_pycocotools(
    detections: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compared(capsys, detections, weaker(detections, tmp_path / "b.json", 1.0), resamples=100)
    expected = json.loads((reference / "reference/detections/stats.json").read_text())
    stats = expected["val2017"] if "val2017" in expected else expected["coco128_val2017"]
    score = result["recipes"][0]["scores"][METRIC]["value"]
    assert score == pytest.approx(stats["AP"], abs=1e-6)
    assert result["images"] == 128
    assert result["recipes"][0]["differences"] == {}
    difference = result["recipes"][1]["differences"][METRIC]
    assert difference["high"] < 0


def test_the_sentence_says_whether_a_difference_is_shown() -> None:
    assert (
        verdict("b", "a", Difference(0.019, 0.007, 0.031, 0.006), 100)
        == "b is better than a by 1.9 AP (95%: 0.7 to 3.1)"
    )
    assert (
        verdict("b", "a", Difference(-0.019, -0.031, -0.007, 0.006), 100)
        == "b is worse than a by 1.9 AP (95%: 0.7 to 3.1)"
    )
    unknown = verdict("b", "a", Difference(0.005, -0.01, 0.02, 0.01), 128)
    assert unknown.startswith("no difference between b and a can be shown")
    assert "more images" in unknown


@pytest.mark.slow
def test_min_gain_is_a_gate(detections: Path, tmp_path: Path) -> None:
    worse = weaker(detections, tmp_path / "worse.json", 1.5)
    up = CompareConfig((str(worse), str(detections)), data="coco128", resamples=100)
    reporter = Recording()
    assert run(up, reporter)
    assert "better than worse.json" in reporter.lines[-1]
    for gain, passes in ((0.5, True), (90.0, False)):
        gated = CompareConfig((str(worse), str(detections)), data="coco128", resamples=100, min_gain=gain)
        assert run(gated, Silent()) is passes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "no list of COCO results"),
        ("not json", "cannot be read as JSON"),
        ('[{"image_id": 139, "category_id": 500, "bbox": [0, 0, 1, 1], "score": 1}]', "category ids outside"),
        ('[{"image_id": 77777, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', "image id 77777"),
        ('[{"image_id": 139, "category_id": 1, "bbox": [0, 0, 1], "score": 1}]', "no list of COCO results"),
        ('[{"image_id": 139, "category_id": 2.9, "bbox": [0, 0, 1, 1], "score": 1}]', "no list of COCO results"),
        ('[{"image_id": 139, "category_id": 1, "bbox": [0, 0, -5, 1], "score": 1}]', "negative width"),
        ('[{"image_id": 139, "category_id": 1000000000000, "bbox": [0, 0, 1, 1], "score": 1}]', "ids outside"),
        pytest.param("[" * 100_000, "cannot be read as JSON", id="nested too deep"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(content: str, message: str, detections: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=message):
        run(CompareConfig((str(detections), str(tmp_path / "bad.json")), data="coco128"), Silent())


def test_the_numbering_of_classes_is_stated(detections: Path, tmp_path: Path) -> None:
    rows = json.loads(detections.read_text())
    published = tmp_path / "published.json"
    published.write_text(json.dumps([row | {"category_id": COCO_CATEGORY_IDS[row["category_id"]]} for row in rows]))
    run(CompareConfig((str(detections), str(published)), data="coco128", resamples=100), reporter := Recording())
    assert "no difference between published.json" in reporter.lines[-1]
    text = "\n".join(reporter.lines)
    assert f"{published}: category ids are taken as COCO's" in text
    assert f"{detections}: category ids are taken as class ids (0 to 79), since none is 80 or more" in text


def test_a_copy_of_the_base_is_not_better(detections: Path) -> None:
    same = CompareConfig((str(detections), str(detections)), data="coco128", resamples=100, min_gain=0.0)
    assert not run(same, Silent())


def test_runs_of_val_are_compared_without_a_model(
    detections: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their figures are those of their predictions.json."""
    options = ValConfig(
        weights=str(reference / "weights/yolov5n.pt"),
        data="coco128",
        img=(64, 64),
        workers=0,
        plots=False,
        save_json=True,
        project=str(tmp_path),
        name="small",
    )
    val.run(options, Silent())
    folder = tmp_path / "small"
    result = compared(capsys, folder / "predictions.json", folder, resamples=100)
    assert result["recipes"][1]["differences"][METRIC]["value"] == pytest.approx(0, abs=1e-9)
    run(CompareConfig((str(folder), str(detections)), resamples=100), reporter := Recording())
    assert reporter.lines[-1].startswith(f"{detections.name} is better than small by")
    with pytest.raises(UserError, match="other images"):
        run(CompareConfig((str(folder), str(folder)), data="coco128", task="train", resamples=100), Silent())


def test_missing_things_are_one_line(detections: Path, tmp_path: Path) -> None:
    (tmp_path / "exp" / "weights").mkdir(parents=True)
    for recipes, data, message in [
        ((str(detections), str(tmp_path / "exp")), "coco128", "no weights/best.pt"),
        ((str(detections), " "), "coco128", "no name"),
        ((str(detections), str(tmp_path / "no*")), "coco128", "matches nothing"),
        ((str(detections), str(detections)), "", "which dataset"),
    ]:
        with pytest.raises(UserError, match=message):
            run(CompareConfig(recipes, data=data), Silent())
    with pytest.raises(UserError, match="two models"):
        CompareConfig((str(detections),))


@pytest.mark.slow
def test_interval_equals_that_of_an_independent_bootstrap(
    detections: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = confident(detections, tmp_path / "a.json")
    check_statement(base, weaker(base, tmp_path / "b.json", 0.7), reference, capsys)


@pytest.mark.slow
def test_statement_on_yolov5n_against_yolox_nano(
    detections: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two published models, each at its own image size."""
    other = predictions_of(reference / "weights/yolox_nano.pth", 416, tmp_path / "nano")
    sentence = check_statement(confident(detections, tmp_path / "v5n.json"), other, reference, capsys)
    assert "no difference between nano.json and v5n.json can be shown" in sentence


@pytest.mark.slow
def test_statement_on_a_fine_tuned_run_against_its_start(
    detections: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One epoch of yolov5n on coco128 at 160 pixels."""
    assert detections.is_file()
    start = reference / "weights/yolov5n.pt"
    options = TrainConfig(
        weights=str(start),
        data="coco128",
        epochs=1,
        img=(160, 160),
        batch=16,
        workers=0,
        noplots=True,
        noautoanchor=True,
        device="cpu",
        project=str(tmp_path),
        name="tuned",
    )
    train.run(options, Silent())
    base = predictions_of(start, 160, tmp_path / "start")
    tuned = predictions_of(tmp_path / "tuned/weights/best.pt", 160, tmp_path / "tuned_val")
    check_statement(base, tuned, reference, capsys)


def predictions_of(weights: Path, side: int, folder: Path) -> Path:
    """Confident predictions of a model on coco128's val images."""
    config = ValConfig(str(weights), data="coco128", img=(side, side), workers=0, device="cpu", save_json=True)
    val.run(replace(config, plots=False, project=str(folder)), Silent())
    return confident(folder / "exp/predictions.json", folder.with_suffix(".json"))


def confident(predictions: Path, out: Path) -> Path:
    """Those above 0.05: fewer, for pycocotools' sake."""
    out.write_text(json.dumps([row for row in json.loads(predictions.read_text()) if row["score"] > 0.05]))
    return out


def check_statement(base: Path, other: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Compare two predictions.json with `yolo compare`, and with resampled datasets that pycocotools scores.

    The datasets are written out image by image. Returns the sentence of `yolo compare`.
    """
    found = compared(capsys, base, other, resamples=1000)["recipes"][1]["differences"][METRIC]
    reporter = Recording()
    run(CompareConfig((str(base), str(other)), data="coco128", resamples=1000), reporter)
    sentence = reporter.lines[-1]
    truth = json.loads((reference / "reference/detections/coco128_val2017_gt.json").read_text())
    results = [json.loads(file.read_text()) for file in (base, other)]
    ids = [image["id"] for image in truth["images"]]
    whole = [_ap_of_drawn(truth, rows, ids) for rows in results]
    difference = whole[1] - whole[0]
    assert found["value"] == pytest.approx(difference, abs=1e-6)
    random, differences = np.random.default_rng(7), []
    for _ in range(40):
        drawn = random.choice(ids, len(ids))
        means = [_ap_of_drawn(truth, rows, drawn.tolist()) for rows in results]
        differences.append(means[1] - means[0])
    error = float(np.std(differences, ddof=1))
    assert found["standard_error"] == pytest.approx(error, rel=0.3)  # 40 resamples determine it to 11%
    # Far from the border, both must agree whether a difference is shown, and which.
    if not 1.5 * error < abs(difference) < 2.5 * error:
        word = "no difference" if abs(difference) < 2 * error else "is better" if difference > 0 else "is worse"
        assert word in sentence
    return sentence


def _ap_of_drawn(truth: dict, rows: list, drawn: list[int]) -> float:
    """pycocotools' AP of the dataset that consists of the drawn images, each as often as it was drawn."""
    boxes_of: dict[int, list] = {i: [] for i in drawn}
    found_of: dict[int, list] = {i: [] for i in drawn}
    for box in truth["annotations"]:
        if box["image_id"] in boxes_of:
            boxes_of[box["image_id"]].append(box)
    for row in rows:
        if row["image_id"] in found_of:
            found_of[row["image_id"]].append(row)
    image_of = {image["id"]: image for image in truth["images"]}
    images, boxes, found = [], [], []
    for new, old in enumerate(drawn, start=1):
        images.append({**image_of[old], "id": new})
        boxes += [{**box, "id": len(boxes) + n, "image_id": new} for n, box in enumerate(boxes_of[old], start=1)]
        found += [{**row, "image_id": new} for row in found_of[old]]
    precision = coco_precision({**truth, "images": images, "annotations": boxes}, found)[..., 0]
    return float(precision[precision > -1].mean())
