"""Confidence thresholds from `yolo val --save-thresholds` to `yolo detect --conf auto` and exported files."""

import json
from pathlib import Path

import pytest
import torch

from tests.recording import Recording
from yolo_cli import load
from yolo_cli.batch import Detections
from yolo_cli.commands import convert, detect, export, info, val
from yolo_cli.config import ConvertConfig, DetectConfig, ExportConfig, InfoConfig, ValConfig
from yolo_cli.config.thresholds import SavedThresholds
from yolo_cli.errors import UserError
from yolo_cli.export.formats import missing_requirement
from yolo_cli.progress import Silent
from yolo_cli.weights import checkpoint
from yolo_cli.weights.load import load_weights

SAVED = SavedThresholds(0.3, (0.15, 0.6, 0.3), "best F1", "the val split of data.yaml (12 images)")


def evaluate(ours: Path, data: Path, tmp_path: Path, **options: object) -> list[str]:
    reporter = Recording()
    given = {"img": (64, 64), "workers": 0, "device": "cpu", "plots": False, "project": str(tmp_path / "runs")}
    val.run(ValConfig(weights=str(ours), data=str(data), **{**given, **options}), reporter)
    return reporter.lines


def test_val_prints_thresholds_and_saves_them_in_the_checkpoint(ours: Path, data: Path, tmp_path: Path) -> None:
    before = checkpoint.read(ours)
    lines = evaluate(ours, data, tmp_path, save_thresholds=True)
    assert any(line.startswith("confidence threshold (best F1)") for line in lines)
    results = json.loads((tmp_path / "runs/exp/results.json").read_text())["thresholds"]
    after = checkpoint.read(ours)
    assert before is not None
    assert after is not None
    assert after.thresholds is not None
    assert after.thresholds.overall == results["overall"]
    assert "val split of data.yaml (12 images)" in after.thresholds.data
    assert after.epoch == before.epoch
    assert all(torch.equal(after.state[name], value) for name, value in before.state.items())
    assert any(line.startswith("thresholds saved in the weights") for line in evaluate(ours, data, tmp_path))
    reporter = Recording()
    info.run(InfoConfig(weights=str(ours)), reporter)
    assert reporter.lines[-1].startswith("confidence thresholds (--conf auto): ")


def test_saving_leaves_the_state_to_resume_from(ours: Path) -> None:
    model = load_weights(ours).build_model()
    checkpoint.save(ours, model, epoch=2, base_license="AGPL-3.0", extra={"training": {"seed": 7}, "img": [32, 64]})
    checkpoint.save_thresholds(ours, SAVED)
    weights = load_weights(ours)
    assert (weights.thresholds, weights.img, weights.base_license) == (SAVED, (32, 64), "AGPL-3.0")
    assert weights.training == {"seed": 7}


def test_thresholds_are_not_saved_where_they_cannot_be(ours: Path, data: Path, tmp_path: Path, reference: Path) -> None:
    before = data.read_text()
    with pytest.raises(UserError, match=r"is no checkpoint of yolo_cli.*yolo convert"):
        evaluate(reference / "weights/yolov5n.pt", _coco(data), tmp_path, save_thresholds=True)
    data.write_text(before)
    for path in (data.parent / "data/labels/train").glob("*.txt"):
        path.write_text("")
    with pytest.raises(UserError, match="no labels to choose thresholds on"):
        evaluate(ours, data, tmp_path, save_thresholds=True)
    with pytest.raises(UserError, match="--save-thresholds --single-cls"):
        ValConfig(save_thresholds=True, single_cls=True)
    with pytest.raises(UserError, match="--beta --min-precision"):
        ValConfig(beta=2, min_precision=0.9)
    with pytest.raises(UserError, match="--beta 0"):
        ValConfig(beta=0)
    assert not (tmp_path / "runs").exists()


def _coco(data: Path) -> Path:
    data.write_text(data.read_text().replace("[circle, square, triangle]", str([f"class{i}" for i in range(80)])))
    return data


def test_a_checkpoint_with_damaged_thresholds_is_refused(ours: Path) -> None:
    checkpoint.save(ours, load_weights(ours).build_model(), epoch=0, extra={"thresholds": {"overall": 3}})
    with pytest.raises(UserError, match="thresholds are not those of 3 classes"):
        load_weights(ours)


def coco_checkpoint(reference: Path, folder: Path) -> Path:
    """yolov5n as a checkpoint of ours."""
    convert.run(ConvertConfig(str(reference / "weights/yolov5n.pt"), str(folder / "ours.pt")), Silent())
    return folder / "ours.pt"


def busy_photo(reference: Path) -> Path:
    """The photograph with the most labels."""
    labels = (reference / "datasets/coco128/labels/val2017").glob("*.txt")
    name = max(labels, key=lambda path: len(path.read_text().splitlines())).stem
    return reference / f"datasets/coco128/images/val2017/{name}.jpg"


def deciding_thresholds(every: Detections) -> tuple[float, ...]:
    """Per class a threshold in the middle of its confidences; 0.9 for classes without detections."""
    per_class = [0.9] * 80
    for class_id in every.class_id.unique().tolist():
        confidence = every.confidence[every.class_id == class_id].sort().values
        middle = len(confidence) // 2
        lower = confidence[middle - 1] if middle else 0.8 * confidence[0]
        per_class[class_id] = float(lower + confidence[middle]) / 2
    return tuple(per_class)


@pytest.fixture
def image(data: Path) -> Path:
    return data.parent / "data/images/train/0.png"


def test_detect_takes_each_class_at_its_own_threshold(reference: Path, tmp_path: Path) -> None:
    ours, photo = coco_checkpoint(reference, tmp_path), busy_photo(reference)
    every = load(ours, img=320, conf=0.02, device="cpu")(photo)
    per_class = deciding_thresholds(every)
    checkpoint.save_thresholds(ours, SavedThresholds(0.3, per_class, "by hand", "one photograph"))
    present = every.class_id.unique().tolist()
    named = ",".join(["0.9", *(f"{every.name(c)}={per_class[c]}" for c in present)])
    kept = every.confidence > torch.tensor(per_class)[every.class_id]
    assert 0 < int(kept.sum()) < len(every)
    for conf in ("auto", named):
        found = load(ours, img=320, conf=conf, device="cpu")(photo)
        assert torch.equal(found.xyxy, every.xyxy[kept])
        assert torch.equal(found.class_id, every.class_id[kept])


def test_detect_command_takes_auto(ours: Path, image: Path, tmp_path: Path) -> None:
    config = DetectConfig(str(image), str(ours), (64, 64), "auto", project=str(tmp_path / "runs"), device="cpu")
    with pytest.raises(UserError, match=r"the weights have no saved thresholds.*--save-thresholds"):
        detect.run(config, Silent())
    checkpoint.save_thresholds(ours, SAVED)
    detect.run(config, Silent())
    assert "conf: auto" in (tmp_path / "runs/exp/opt.yaml").read_text()


def test_a_copy_keeps_the_thresholds(ours: Path, tmp_path: Path) -> None:
    checkpoint.save_thresholds(ours, SAVED)
    convert.run(ConvertConfig(str(ours), str(tmp_path / "copy.pt")), Silent())
    assert load_weights(tmp_path / "copy.pt").thresholds == SAVED


@pytest.mark.usefixtures("unchecked_shapes")
def test_info_shows_the_thresholds_of_an_exported_file(ours: Path, tmp_path: Path) -> None:
    checkpoint.save_thresholds(ours, SAVED)
    options = {"include": "torchscript", "img": (64, 64), "nms": True, "conf": "auto", "verify": False}
    (made,) = export.run(ExportConfig(weights=str(ours), project=str(tmp_path / "runs"), **options), Silent())  # type: ignore[arg-type]
    reporter = Recording()
    info.run(InfoConfig(weights=str(made.path)), reporter)
    assert "NMS inside: confidence threshold 0.15 to 0.6 by class" in "\n".join(reporter.lines)
    assert reporter.lines[-1].startswith("confidence thresholds (--conf auto): 0.3; circle=0.15, square=0.6; best F1")
    with pytest.raises(UserError, match="only Darknet weights"):
        info.run(InfoConfig(weights=str(made.path), cfg="net.cfg"), Silent())


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ["torchscript", "onnx", "openvino"])
def test_exported_files_have_the_thresholds(name: str, reference: Path, tmp_path: Path) -> None:
    """yolov5n on a photograph: NMS inside the file has the thresholds of each class; without NMS, `auto` finds them."""
    if missing := missing_requirement(name):
        pytest.skip(missing)
    ours, photo = coco_checkpoint(reference, tmp_path), busy_photo(reference)
    options = {"img": (640, 640), "device": "cpu", "max_det": 300}
    every = load(ours, conf=0.02, **options)(photo)
    checkpoint.save_thresholds(ours, SavedThresholds(0.3, deciding_thresholds(every), "by hand", "one photograph"))
    wanted = load(ours, conf="auto", **options)(photo)
    assert 0 < len(wanted) < len(every)
    for nms in (True,) if name == "openvino" else (True, False):
        config = ExportConfig(str(ours), name, nms=nms, conf="auto", project=str(tmp_path / f"nms_{nms}"), dynamic=True)
        (result,) = export.run(config, Silent())
        assert result.metadata.thresholds is not None
        assert result.parity is not None
        assert result.parity.passed
        found = load(result.path, conf="auto", **options)(photo)
        assert found.class_id.tolist() == wanted.class_id.tolist()
        torch.testing.assert_close(found.xyxy, wanted.xyxy, atol=0.1, rtol=0)
