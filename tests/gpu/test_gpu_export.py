"""Exported files on a GPU."""

from pathlib import Path

import pytest

from tests.gpu.test_gpu_training import on_gpu
from yolo_cli.commands.export import run as export
from yolo_cli.commands.train import run as train
from yolo_cli.commands.val import run as validate
from yolo_cli.config import ExportConfig, ValConfig
from yolo_cli.progress import Silent


@pytest.mark.parametrize("name", ["torchscript", "onnx"])
def test_an_exported_file_is_evaluated_on_the_gpu(small: Path, tmp_path: Path, name: str) -> None:
    trained = train(on_gpu(small, tmp_path), Silent())
    weights = str(trained.folder / "weights/best.pt")
    export(ExportConfig(weights=weights, include=name, img=(64, 64), device="0", project=str(tmp_path)), Silent())
    (written,) = [path for path in tmp_path.rglob("best*") if path.suffix in (".torchscript", ".onnx")]
    config = ValConfig(weights=str(written), data=str(small), img=(64, 64), project=str(tmp_path), device="0")
    assert 0 <= validate(config, Silent()).metrics.map50 <= 1
