"""Published YOLOX weights: names, the fold of BGR 0 … 255, norms folded or not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from yolo_cli.boxes.nms import non_max_suppression
from yolo_cli.commands.val import run as val
from yolo_cli.config import ValConfig
from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
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
        ({"head.stems.0.bn.bias": torch.zeros(3)}, "do not fit its architecture"),
        ({"backbone.backbone.stem.conv.bn.running_var": torch.zeros(1, 1, 5)}, "do not fit|not a valid YOLOX"),
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


@pytest.mark.slow
@pytest.mark.parametrize(("split", "ap"), [("val", 0.3376), ("train", 0.3338)])
def test_the_real_weights_have_the_published_ap(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, ap: float
) -> None:
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
