"""`yolo info` prints the license of a weight file, and checkpoints remember what they were trained from."""

from pathlib import Path

import pytest

from yolo_cli.commands.convert import run as convert
from yolo_cli.config import ConvertConfig
from yolo_cli.model.architecture import find_architecture
from yolo_cli.progress import Silent
from yolo_cli.weights.license import inherited, license_of
from yolo_cli.weights.load import load_weights

COCO = [str(i) for i in range(80)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolov5n", "AGPL-3.0 (published YOLOv5)"),
        ("yolov7-tiny", "GPL-3.0 (published YOLOv7)"),
        ("yolox-nano", "Apache-2.0 (YOLOX)"),
    ],
)
def test_files_of_other_projects(name: str, expected: str) -> None:
    architecture = find_architecture(name)
    assert license_of("pytorch", architecture, COCO, "") == expected
    own = license_of("pytorch", architecture.with_classes(3), COCO[:3], "")
    assert own.startswith("not in the file")
    assert expected.split(maxsplit=1)[0] in own


def test_what_a_training_began_with_is_kept() -> None:
    architecture = find_architecture("yolov5n").with_classes(3)
    assert license_of("yolo_cli", architecture, COCO[:3], "") == "yours"
    assert inherited("yours") == ""
    first = license_of("yolo_cli", architecture, COCO[:3], inherited("Apache-2.0 (YOLOX)"))
    assert first == "yours; it was trained from weights with the license Apache-2.0 (YOLOX)"
    assert license_of("yolo_cli", architecture, COCO[:3], inherited(first)) == first


def test_converting_keeps_the_license(reference: Path, tmp_path: Path) -> None:
    convert(ConvertConfig(str(reference / "weights/yolov5n.pt"), str(tmp_path / "mine.pt")), Silent())
    assert "AGPL-3.0" in load_weights(tmp_path / "mine.pt").license
