"""The first command of somebody who has no weights and no run."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.recording import Recording
from yolo_cli.commands.detect import run as detect
from yolo_cli.config import DetectConfig
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent
from yolo_cli.weights.published import PUBLISHED


def config(reference: Path, tmp_path: Path) -> DetectConfig:
    image = reference / "datasets/coco128/images/val2017/000000000285.jpg"
    return DetectConfig(source=str(image), img=(416, 416), project=str(tmp_path / "runs"), save_txt=True)


@pytest.mark.slow
def test_detect_without_weights_uses_the_free_ones(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_WEIGHTS", str(reference / "weights"))
    reporter = Recording()
    summary = detect(config(reference, tmp_path), reporter)
    assert "yolox-nano" in reporter.lines[0]
    assert any("1 bear" in line for line in reporter.lines)
    assert summary.skipped == 0


def test_offline_without_weights_it_is_one_line(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YOLO_WEIGHTS", raising=False)
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path / "cache"))
    closed = replace(PUBLISHED["yolox-nano"], url="http://127.0.0.1:9/yolox_nano.pth")  # nothing answers there
    monkeypatch.setitem(PUBLISHED, "yolox-nano", closed)
    with pytest.raises(UserError, match=r"cannot download .*yolox_nano\.pth") as error:
        detect(config(reference, tmp_path), Silent())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
