"""Published YOLOX weights: names, the fold of BGR 0 … 255, norms folded or not."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from yolo_cli.batch import Batch, Letterbox
from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.commands.val import run as val
from yolo_cli.config import ValConfig
from yolo_cli.dataset.images import read_image
from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.dataset.splits import class_names, load_split, prepare_dataset
from yolo_cli.errors import UserError
from yolo_cli.evaluation.evaluate import EvalDataset, EvalOptions, evaluate
from yolo_cli.evaluation.evaluator import Evaluator
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_weights
from yolo_cli.weights.pytorch.yolox import PARTS, ROWS, our_name


def published_name(name: str) -> str:
    """The inverse of `our_name`."""
    _, row, *parts = name.split(".")
    back = {ours: theirs for theirs, ours in PARTS.items()}
    return ".".join([ROWS[int(row)], *(back.get(part, part) for part in parts)])


def published_file(path: Path, model: DetectionModel) -> Path:
    """A file as the published code saves it, of a network that takes BGR in 0 … 255."""
    state = {published_name(name): value for name, value in model.state_dict().items()}
    torch.save({"start_epoch": 300, "model": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def live(size: str, nc: int = 3) -> DetectionModel:
    """A model whose norms do something."""
    torch.manual_seed(0)
    model = DetectionModel(find_architecture(f"yolox-{size}").with_classes(nc)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data = torch.randn_like(tensor) * 0.1 + 0.5
            module.running_var = torch.rand_like(module.weight) + 0.5
    return model


def test_the_real_weights_give_the_published_output(reference: Path) -> None:
    stored = np.load(reference / "reference/forward/yolox/yolox-nano_pretrained_000000000034.npz")
    weights = load_weights(reference / "weights/yolox_nano.pth")
    assert weights.architecture.name == "yolox-nano"
    assert weights.names[:2] == ("person", "bicycle")
    assert weights.was_fused
    model = weights.build_model().eval()
    image = torch.from_numpy(stored["input_uint8_bgr"]).flip(1).float() / 255
    with torch.inference_mode():
        decoded = model.decode(model(image))
        (found,) = non_max_suppression(decoded, conf=0.25, iou=0.45, max_det=300, multi_label=False)
    rows = decoded[0, ::7].numpy()
    np.testing.assert_allclose(rows, stored["decoded"], atol=1e-5 * np.abs(stored["decoded"]).max())
    np.testing.assert_allclose(rows[:, 4:], stored["decoded"][:, 4:], atol=1e-4)
    ours = torch.cat((found.xyxy, found.confidence[:, None], found.class_id[:, None]), 1)
    np.testing.assert_allclose(ours, stored["nms_conf25_iou45"], atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_live_norms_are_read_as_they_are(tmp_path: Path, size: str) -> None:
    model = live(size)
    weights = load_weights(published_file(tmp_path / "own.pth", model))
    assert weights.architecture == model.architecture
    assert weights.names == ("0", "1", "2")
    assert not weights.was_fused
    pixels = torch.randint(0, 256, (1, 3, 64, 96)).float()  # RGB
    with torch.inference_mode():
        theirs = model(pixels.flip(1))
        ours = weights.build_model().eval()(pixels / 255)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_half_precision_is_read(tmp_path: Path) -> None:
    path = published_file(tmp_path / "half.pth", live("nano").half())
    assert load_weights(path).build_model().state_dict()["model.0.conv.conv.weight"].dtype == torch.float32


def test_names_lead_there_and_back() -> None:
    for name in DetectionModel(find_architecture("yolox-nano")).state_dict():
        assert our_name(published_name(name)) == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.odd.weight": torch.zeros(1)}, "backbone.odd.weight is no part of a YOLOX network"),
        ({"head.stems.0.conv.weight": torch.zeros(3, 5, 1, 1)}, "not a YOLOX of a published size"),
        pytest.param({"head.stems.0.bn.bias": torch.zeros(3)}, "do not fit its architecture", marks=pytest.mark.slow),
        pytest.param(
            {"backbone.backbone.stem.conv.bn.running_var": torch.zeros(1, 1, 5)},
            "do not fit|not a valid YOLOX",
            marks=pytest.mark.slow,
        ),
        ({"head.cls_preds.0.weight": torch.zeros(())}, "holds no YOLO model"),
    ],
)
def test_other_networks_and_damaged_ones_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], message: str
) -> None:
    path = published_file(tmp_path / "odd.pth", live("nano"))
    content = torch.load(path, weights_only=True)
    content["model"] |= change
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_weights(path).build_model()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = published_file(tmp_path / "short.pth", live("nano"))
    content = torch.load(path, weights_only=True)
    del content["model"]["head.stems.0.bn.running_var"]
    torch.save(content, path)
    with pytest.raises(UserError, match=r"running_var|do not fit"):
        load_weights(path).build_model()


def published_batch(index: LabelIndex, position: int, side: int) -> Batch:
    """An image as the published code prepares it: square canvas, image at its top left, linear interpolation."""
    image = read_image(index.path(position))
    height, width = image.shape[:2]
    gain = min(side / height, side / width)
    small = cv2.resize(image, (int(width * gain), int(height * gain)), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    pixels = torch.from_numpy(canvas).permute(2, 0, 1)[None]
    return Batch(pixels, torch.zeros(0, 6), (position,), (Letterbox(height, width, gain, gain, 0.0, 0.0),))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "train"])
def test_the_published_protocol_gives_the_published_ap(
    reference: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    stats = json.loads((reference / "reference/detections/yolox_nano_stats.json").read_text())
    spec = prepare_dataset("coco128", Silent())
    index = load_split(spec, split, single_cls=False, strict=False, workers=0, reporter=Silent()).index
    batches: Any = [published_batch(index, position, 416) for position in range(len(index))]
    evaluation = evaluate(
        fuse(load_weights(reference / "weights/yolox_nano.pth").build_model().eval()),
        EvalDataset(DataLoader(batches, batch_size=None), index),
        Evaluator(class_names(spec, single_cls=False)),
        EvalOptions(conf=0.001, iou=0.65, multi_label=False),
        device=torch.device("cpu"),
        reporter=Silent(),
    )
    ap, ap50 = stats[split][:2]
    assert evaluation.metrics.map50_95 == pytest.approx(ap, abs=0.006)
    assert evaluation.metrics.map50 == pytest.approx(ap50, abs=0.001)


# The published protocol differs in canvas, classes per box and NMS; see docs/models.md.
@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "train"])
def test_val_is_close_to_the_published_ap(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    ap = json.loads((reference / "reference/detections/yolox_nano_stats.json").read_text())[split][0]
    monkeypatch.setenv("YOLO_DATASETS", str(reference / "datasets"))
    config = ValConfig(
        weights=str(reference / "weights/yolox_nano.pth"),
        data="coco128",
        img=(416, 416),
        task=split,
        workers=0,
        plots=False,
        project=str(tmp_path),
    )
    assert val(config, Silent()).metrics.map50_95 == pytest.approx(ap, abs=0.006)
