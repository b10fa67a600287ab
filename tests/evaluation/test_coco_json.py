import json
from pathlib import Path

import pytest
from metric_cases import random_case

from yolo_cli.errors import UserError
from yolo_cli.evaluation.coco_json import PredictionsFile, coco_ground_truth, image_ids
from yolo_cli.evaluation.pycocotools_check import pycocotools_metrics


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["000000000139.jpg", "000000000285.jpg"], [139, 285]),
        (["a.jpg", "b.jpg"], [1, 2]),
        (["a.jpg", "7.jpg", "b.jpg"], [8, 7, 9]),
        (["one/5.jpg", "two/5.jpg"], [5, 6]),
        (["0.jpg"], [0]),
        (["12345678901234567890.jpg", "3.jpg"], [4, 3]),
        (["²3.jpg", "-4.jpg", "1.5.jpg"], [1, 2, 3]),
        ([], []),
    ],
    ids=["coco", "words", "mixed", "same name twice", "zero", "too long", "not quite numbers", "none"],
)
def test_image_ids(files: list[str], ids: list[int]) -> None:
    assert image_ids([Path(f) for f in files]) == ids


def test_json_files_give_the_same_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = random_case(5, images=8)
    evaluator = case.evaluator(batch=3)
    with PredictionsFile(tmp_path / "predictions.json") as file:
        for image in range(8):  # one at a time
            file.write(case.evaluator(order=[image]).state())
    names = {i: f"{i}.jpg" for i in case.ids}
    truth = coco_ground_truth(evaluator.state(), case.names, names)
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    predictions = json.loads((tmp_path / "predictions.json").read_text())
    theirs = pycocotools_metrics(json.loads((tmp_path / "truth.json").read_text()), predictions)
    ours = evaluator.compute().to_dict()["metrics"]
    assert isinstance(ours, dict)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    assert capsys.readouterr().out == ""

    assert {p["image_id"] for p in predictions} <= set(case.ids)
    assert truth["images"][0]["file_name"] == f"{min(case.ids)}.jpg"
    assert len(predictions) == sum(len(d) for d in case.detections)


def test_pycocotools_metrics_do_not_change_the_ground_truth() -> None:
    evaluator = random_case(5).evaluator()
    truth = coco_ground_truth(evaluator.state(), evaluator.names)
    before = json.dumps(truth)
    pycocotools_metrics(truth, [])
    assert json.dumps(truth) == before


def test_unwritable_predictions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write: No such file or directory"):
        PredictionsFile(tmp_path / "no" / "predictions.json").__enter__()


def test_predictions_without_any(tmp_path: Path) -> None:
    with PredictionsFile(tmp_path / "predictions.json") as file:
        file.write(random_case(1, max_predictions=0).evaluator().state())
    assert json.loads((tmp_path / "predictions.json").read_text()) == []


def test_predictions_of_an_evaluation_that_fails_leave_no_file(tmp_path: Path) -> None:
    def evaluate() -> None:
        with PredictionsFile(tmp_path / "predictions.json") as file:
            file.write(random_case(1).evaluator().state())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert list(tmp_path.iterdir()) == []
