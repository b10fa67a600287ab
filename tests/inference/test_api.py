"""The Python API, and options that are out of range."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision
import torch
from PIL import Image

import yolo_cli
from tests.inference.conftest import Runner, make_image, save_image
from yolo_cli.batch import Detections
from yolo_cli.errors import UserError


def test_load_and_call(tiny: Path, tmp_path: Path) -> None:
    model = yolo_cli.load(tiny, img=64, max_det=5, device="cpu")
    path = save_image(tmp_path / "a.png")
    found = model(str(path))
    assert isinstance(found, Detections)
    assert found.names == model.names == ("cat", "dog", "bär")
    assert 0 < len(found) <= 5
    rgb = make_image()[..., ::-1]
    pil = Image.open(path)
    for other in model([path, rgb, pil]):
        assert torch.equal(found.xyxy, other.xyxy)
    assert model([]) == []
    found.xyxy[:] += 1  # an ordinary tensor, which its owner may change


def test_detections_convert_to_numpy_and_coco() -> None:
    found = Detections(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([0.5]), torch.tensor([1]), ("cat", "dog"))
    np.testing.assert_array_equal(found.numpy(), np.array([[1, 2, 4, 8, 0.5, 1]], np.float32))
    assert found.to_coco(7) == [{"image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5}]
    assert found.counts() == {"dog": 1}
    assert Detections.empty().numpy().shape == (0, 6)


def test_detections_for_supervision() -> None:
    found = Detections(torch.tensor([[1.0, 2, 4, 8], [3, 3, 9, 9]]), torch.tensor([0.5, 0.25]), torch.tensor([1, 0]))
    named = replace(found, names=("cat", "dog")).to_supervision()
    assert isinstance(named, supervision.Detections)
    np.testing.assert_array_equal(named.xyxy, found.xyxy.numpy())
    np.testing.assert_array_equal(named.confidence, [0.5, 0.25])
    np.testing.assert_array_equal(named.class_id, [1, 0])
    np.testing.assert_array_equal(named["class_name"], ["dog", "cat"])
    assert len(named[named.class_id == 1]) == 1
    assert len(supervision.Detections.merge([named, Detections.empty().to_supervision()])) == 2


def test_supervision_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)  # Python's own way to make an import fail
    with pytest.raises(UserError, match="supervision is not installed"):
        Detections.empty().to_supervision()


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "no/such/file.jpg"]
)
def test_invalid_images_are_refused(tiny: Path, wrong: object) -> None:
    with pytest.raises(UserError):
        yolo_cli.load(tiny, img=64, device="cpu")(wrong)


@pytest.mark.parametrize(
    "options", [{"conf": 2}, {"iou": -1}, {"max_det": 0}, {"tile": 7}, {"tile": -5}, {"classes": [3]}]
)
def test_load_refuses_options_out_of_range(tiny: Path, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(options)).replace("_", ".")):
        yolo_cli.load(tiny, device="cpu", **options)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, yolo_cli; assert not {'torch', 'cv2', 'numpy'} & set(sys.modules); yolo_cli.load"
    code += "; assert 'torch' in sys.modules"
    code += "; assert not {'matplotlib', 'torchvision', 'hotcoco', 'pycocotools'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = yolo_cli.nothing  # type: ignore[attr-defined]


def test_building_a_network_does_not_import_sympy() -> None:
    """torch imports sympy for arithmetic on meta tensors, which takes about as long as importing torch itself."""
    code = """
import sys, torch
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
with torch.device("meta"):
    DetectionModel(find_architecture("yolov5n"))
assert "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "--conf 1.5: must be from 0 to 1"),
        ({"iou": -1.0}, "--iou -1.0"),
        ({"max_det": 0}, "--max-det 0: must be at least 1"),
        ({"vid_stride": 0}, "--vid-stride 0"),
        ({"classes": (3,)}, "--classes 3: the model's classes are 0 to 2"),
        ({"tile": 7}, "--tile 7"),
        ({"save_conf": True}, "--save-conf"),
        ({"half": True}, "--half"),
        ({"weights": "none.pt"}, "no such weight file"),
        ({"view_img": True}, "--view-img"),
    ],
)
def test_options_out_of_range(run: Runner, tmp_path: Path, options: dict[str, object], message: str) -> None:
    if "view_img" in options and "GTK" in cv2.getBuildInformation() and "headless" not in cv2.__file__:
        pytest.skip("this OpenCV may have windows")
    with pytest.raises(UserError, match=message):
        run(save_image(tmp_path / "a.jpg"), **options)
    assert not (tmp_path / "runs").exists()


def test_default_weights_are_those_of_the_newest_run(run: Runner, tiny: Path, tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg")
    newest = tmp_path / "runs" / "trained" / "weights" / "best.pt"
    newest.parent.mkdir(parents=True)
    newest.write_bytes(tiny.read_bytes())
    assert run(path, weights="").messages.infos[0] == f"--weights not given: using {newest} of the newest run"
