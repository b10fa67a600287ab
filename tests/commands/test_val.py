"""`yolo val`: the files that it writes."""

import json
from pathlib import Path

import pytest

from tests.recording import Recording
from yolo_cli.commands.val import run
from yolo_cli.config import ValConfig
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent


def config(ours: Path, data: Path, tmp_path: Path, **options: object) -> ValConfig:
    given = {"img": (64, 64), "workers": 0, "device": "cpu", "plots": False, "project": str(tmp_path / "runs")}
    return ValConfig(weights=str(ours), data=str(data), **{**given, **options})


def test_txt_and_json_hold_the_same_detections(ours: Path, data: Path, tmp_path: Path) -> None:
    run(config(ours, data, tmp_path, save_txt=True, save_conf=True, save_json=True, max_det=5), Silent())
    results = json.loads((tmp_path / "runs/exp/predictions.json").read_text())
    rows = [
        (path.stem, *map(float, line.split()))
        for path in (tmp_path / "runs/exp/labels").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert len(rows) == len(results) > 0
    by_row = {(name, int(class_id), round(score, 6)) for name, class_id, *_, score in rows}
    by_result = {(str(r["image_id"]), r["category_id"], round(r["score"], 6)) for r in results}
    assert by_row == by_result
    for _, _, cx, cy, w, h, _ in rows:
        assert cx - w / 2 + 1e-6 >= 0
        assert cx + w / 2 <= 1 + 1e-6
        assert cy - h / 2 + 1e-6 >= 0
        assert cy + h / 2 <= 1 + 1e-6


def test_pycocotools_gives_the_same_average_precision(ours: Path, data: Path, tmp_path: Path) -> None:
    reporter = Recording()
    evaluation = run(config(ours, data, tmp_path, pycocotools=True), reporter)
    results = json.loads((tmp_path / "runs/exp/results.json").read_text())
    assert results["pycocotools"]["mAP_0.5:0.95"] == pytest.approx(evaluation.metrics.map50_95, abs=1e-6)
    assert any("by pycocotools" in line for line in reporter.lines)


def test_a_dataset_with_other_classes_is_refused(ours: Path, data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text().replace(", triangle", ""))
    with pytest.raises(UserError, match=r"has 3 classes, but .* has 2"):
        run(config(ours, data, tmp_path), Silent())
    assert not (tmp_path / "runs").exists()
