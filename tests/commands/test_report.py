"""`yolo report`, and the report at the end of `yolo val` and `yolo train`."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recording import Recording
from tests.report.reading import check
from yolo_cli.commands import report, train, val
from yolo_cli.config import ReportConfig, TrainConfig, ValConfig
from yolo_cli.errors import UserError
from yolo_cli.evaluation.saved_evaluation import load_evaluation
from yolo_cli.evaluation.weighted_ap import WeightedAP
from yolo_cli.progress import Silent


@pytest.fixture
def run(ours: Path, data: Path, tmp_path: Path) -> Path:
    """The run folder of an evaluation, without plots."""
    config = ValConfig(
        str(ours), data=str(data), img=(64, 64), workers=0, plots=False, project=str(tmp_path / "runs"), name="val"
    )
    val.run(config, Silent())
    return tmp_path / "runs" / "val"


def write(run: Path, **options: str) -> Path:
    return report.run(ReportConfig(str(run), resamples=100, workers=0, **options), Silent())  # type: ignore[arg-type]


def test_val_leaves_what_a_report_needs(run: Path) -> None:
    saved = load_evaluation(run)
    results = json.loads((run / "results.json").read_text())
    ap = WeightedAP(saved.data, len(saved.names))(np.ones(len(saved.paths), dtype=np.int64))
    assert np.nanmean(ap[0]) == pytest.approx(results["metrics"]["mAP_0.5:0.95"], abs=1e-9)
    assert saved.fingerprint == results["dataset"]["val"]["fingerprint"]
    assert saved.names == ("circle", "square", "triangle")
    # The images are 16² bright pixels on 64² of 0 to 59.
    assert saved.brightness == pytest.approx((29.5 * 15 + 250) / 16 / 255, abs=0.06)
    assert not (run / "report.html").exists()  # --noplots


def test_report_of_a_run(run: Path) -> None:
    path = write(run)
    assert path == run / "report.html"
    page = check(path.read_text(encoding="utf-8"))
    assert "Evaluation of val" in page.text
    assert "square" in page.text
    assert load_evaluation(run).fingerprint in page.text


def test_a_report_with_a_base_and_another_place(run: Path, tmp_path: Path) -> None:
    path = write(run, base=str(run), output=str(tmp_path / "here.html"))
    assert path == tmp_path / "here.html"
    assert "no difference between val and val can be shown" in check(path.read_text(encoding="utf-8")).text


def test_val_writes_a_report(ours: Path, data: Path, tmp_path: Path) -> None:
    project = str(tmp_path / "runs")
    val.run(ValConfig(str(ours), data=str(data), img=(64, 64), workers=0, project=project, name="val"), Silent())
    check((tmp_path / "runs/val/report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_train_writes_a_report(ours: Path, data: Path, tmp_path: Path) -> None:
    project = str(tmp_path / "runs")
    config = TrainConfig(
        str(ours), data=str(data), img=(64, 64), epochs=1, batch=4, workers=0, project=project, name="train"
    )
    train.run(config, Silent())
    page = check((tmp_path / "runs/train/report.html").read_text(encoding="utf-8"))
    assert "Learning rate" in page.text
    assert "Hyperparameters" in page.text


def test_a_run_without_its_evaluation_is_evaluated_again(run: Path) -> None:
    first = load_evaluation(run)
    (run / "evaluation.npz").unlink()
    reporter = Recording()
    report.run(ReportConfig(str(run), resamples=100, workers=0), reporter)
    assert any("evaluating" in line for line in reporter.lines)
    again = load_evaluation(run)
    np.testing.assert_array_equal(again.data.predictions.confidence, first.data.predictions.confidence)
    assert again.paths == first.paths


def test_what_cannot_be_reported_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no weights that could be evaluated"):
        write(tmp_path)
    with pytest.raises(UserError, match="--base"):
        write(run, base=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="--output"):
        write(run, output=str(tmp_path))
    weights = tmp_path / "precious.pt"
    weights.write_bytes(b"x")
    with pytest.raises(UserError, match="no name of an HTML file"):
        write(run, output=str(weights))
    assert weights.read_bytes() == b"x"
    (run / "evaluation.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"evaluation\.npz: cannot be read"):
        write(run)


def test_a_report_that_fails_does_not_lose_the_results(ours: Path, data: Path, tmp_path: Path) -> None:
    # A folder in its place: no file of that name can be written.
    (tmp_path / "runs/val/report.html").mkdir(parents=True)
    config = ValConfig(
        str(ours), data=str(data), img=(64, 64), workers=0, project=str(tmp_path / "runs"), name="val", exist_ok=True
    )
    reporter = Recording()
    val.run(config, reporter)
    assert (tmp_path / "runs/val/results.json").is_file()
    assert any("report.html" in line and "not written" in line for line in reporter.lines)


def test_the_dataset_is_only_read(run: Path, data: Path) -> None:
    def state() -> list[tuple[str, int]]:
        folder = data.parent / "data"
        return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))

    before = state()
    write(run)
    assert state() == before
