"""`yolo val --tile` against the detections that `yolo detect --tile` writes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolo_cli.commands import detect, val
from yolo_cli.config import DetectConfig, TrainConfig, ValConfig
from yolo_cli.dataset.spec import load_spec
from yolo_cli.errors import UserError
from yolo_cli.evaluation.pycocotools_check import pycocotools_metrics
from yolo_cli.progress import Silent


@pytest.fixture
def photographs(reference: Path, tmp_path: Path) -> Path:
    """Six photographs of coco128 with their labels, each enlarged to twice its size; the data.yaml."""
    source = reference / "datasets/coco128"
    for kind in ("images", "labels"):
        (tmp_path / f"{kind}/val").mkdir(parents=True)
    for path in sorted((source / "images/val2017").glob("*.jpg"))[:6]:
        image = cv2.imread(str(path))
        cv2.imwrite(str(tmp_path / f"images/val/{path.stem}.png"), cv2.resize(image, None, fx=2, fy=2))
        label = source / f"labels/val2017/{path.stem}.txt"
        (tmp_path / f"labels/val/{path.stem}.txt").write_text(label.read_text() if label.exists() else "")
    names = list(load_spec(str(source / "data.yaml")).names)
    content = {"path": ".", "train": "images/val", "val": "images/val", "names": names}
    (tmp_path / "data.yaml").write_text(json.dumps(content))
    return tmp_path / "data.yaml"


@pytest.mark.slow
def test_val_equals_what_detect_writes(photographs: Path, reference: Path, tmp_path: Path) -> None:
    weights, runs = str(reference / "weights/yolov5n.pt"), str(tmp_path / "runs")
    options = {"img": (320, 320), "tile": 480, "device": "cpu", "project": runs}
    evaluated = val.run(
        ValConfig(weights, data=str(photographs), workers=0, plots=False, save_json=True, **options), Silent()
    )
    source = str(photographs.parent / "images/val")
    detect.run(
        DetectConfig(source, weights, conf=0.001, iou=0.6, max_det=300, save_json=True, nosave=True, **options),
        Silent(),
    )
    own = json.loads((tmp_path / "runs/exp/predictions.json").read_text())
    (written,) = (tmp_path / "runs/exp2").glob("*.json")
    rows = json.loads(written.read_text())
    assert len(rows) == len(own) > 100
    ids = sorted({row["image_id"] for row in own})
    images, annotations = [], []
    for number in ids:
        stem = next(p.stem for p in (photographs.parent / "images/val").iterdir() if int(p.stem) == number)
        height, width = cv2.imread(str(photographs.parent / f"images/val/{stem}.png")).shape[:2]
        images.append({"id": number, "file_name": f"{stem}.png", "width": width, "height": height})
        for line in (photographs.parent / f"labels/val/{stem}.txt").read_text().splitlines():
            c, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append({"image_id": number, "category_id": int(c), "bbox": box, "area": box[2] * box[3]})
    annotations = [row | {"id": i, "iscrowd": 0} for i, row in enumerate(annotations, start=1)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": str(i)} for i in range(80)]}
    judged = pycocotools_metrics(truth, rows)
    assert evaluated.metrics.map50_95 == pytest.approx(judged["mAP_0.5:0.95"], abs=1e-9)
    assert np.isnan(evaluated.losses).all()


@pytest.mark.parametrize("other", [{"rect": True}, {"cache": "ram"}])
def test_tiles_need_all_pixels(other: dict[str, object]) -> None:
    with pytest.raises(UserError, match="--tile --"):
        TrainConfig(tile=640, **other)  # type: ignore[arg-type]
