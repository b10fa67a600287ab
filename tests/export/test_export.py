"""`yolo export` as a user runs it: files, parity check, report, and errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_cli import load
from yolo_cli.cli.app import main
from yolo_cli.commands.export import ExportResult
from yolo_cli.commands.export import run as export
from yolo_cli.commands.val import run as validate
from yolo_cli.config import ExportConfig, ValConfig
from yolo_cli.errors import UserError
from yolo_cli.export import formats
from yolo_cli.export.formats import FORMATS, format_of, missing_requirement, open_exported
from yolo_cli.export.spec import ExportSpec
from yolo_cli.progress import Silent

CPU = torch.device("cpu")


def run(tmp_path: Path, weights: Path, include: str, **options: Any) -> ExportResult:
    if missing := missing_requirement(include):
        pytest.skip(missing)
    given = {"img": (128, 160), "project": str(tmp_path / "runs"), **options}
    (done,) = export(ExportConfig(weights=str(weights), include=include, **given), Silent())
    return done


CASES = [
    ("torchscript", {}),
    ("torchscript", {"dynamic": True, "nms": True}),
    ("onnx", {}),
]
SLOW_FORMATS = [pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "openvino")]
SLOW_CASES = [
    ("openvino", {}),
    ("ncnn", {}),
    ("torchscript", {"nms": True, "batch": 2}),
    ("torchscript", {"half": True}),
    ("onnx", {"nms": True, "batch": 2}),
    ("onnx", {"batch": 4, "simplify": True}),
    ("onnx", {"dynamic": True, "nms": True}),
    ("onnx", {"half": True}),
    ("onnx", {"opset": 17}),
    ("openvino", {"batch": 4, "nms": True}),
    ("openvino", {"dynamic": True}),
    ("pt2", {}),
    ("pt2", {"dynamic": True}),
    ("ncnn", {"half": True}),
    ("executorch", {}),
]


@pytest.mark.parametrize(
    ("name", "options"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else v,
)
def test_an_exported_file_gives_the_same_detections_and_map_as_pytorch(
    tmp_path: Path, weights: Path, photos: Path, name: str, options: dict[str, Any]
) -> None:
    done = run(tmp_path, weights, name, data=str(photos), **options)
    assert done.parity is not None
    assert done.parity.passed, done.parity.violations
    assert done.parity.matched == done.parity.detections > 5
    assert done.map50_95 is not None
    before, after = done.map50_95
    assert after == pytest.approx(before, abs=0.02 if options.get("half") else 0.001)  # few images
    report = json.loads((done.path.parent / "report.json").read_text())["formats"][name]
    assert report["proof"]["passed"]
    assert report["file"] == done.path.name


@pytest.mark.parametrize("name", ["torchscript", *SLOW_FORMATS])
def test_any_number_of_images_runs_in_batches_of_the_files_size(
    tmp_path: Path, weights: Path, fused: Any, name: str
) -> None:
    done = run(tmp_path, weights, name, batch=2, verify=False)
    images = torch.rand(3, 3, 128, 160)
    with torch.inference_mode():
        found, wanted = open_exported(done.path, CPU).predict(images), fused.decode(fused(images))
    torch.testing.assert_close(torch.stack(list(found)), wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["torchscript", *SLOW_FORMATS])
def test_nms_in_the_file_gives_no_detections_for_an_empty_image(tmp_path: Path, weights: Path, name: str) -> None:
    done = run(tmp_path, weights, name, nms=True, verify=False)
    with torch.inference_mode():
        (rows,) = open_exported(done.path, CPU).predict(torch.full((1, 3, 128, 160), 0.45))
    assert rows.shape == (0, 85)


@pytest.mark.parametrize("name", ["torchscript", SLOW_FORMATS[0]])
def test_nms_in_the_file_keeps_at_most_max_det_detections_per_image(
    tmp_path: Path, weights: Path, photos: Path, name: str
) -> None:
    done = run(tmp_path, weights, name, nms=True, batch=2, conf=0.001, max_det=5, data=str(photos))
    assert done.parity is not None
    assert done.parity.passed, done.parity.violations
    with torch.inference_mode():
        rows = open_exported(done.path, CPU).predict(torch.rand(2, 3, 128, 160))
    assert [len(r) <= 5 for r in rows] == [True, True]


@pytest.mark.slow
def test_int8_files_are_smaller_and_have_no_tolerance(tmp_path: Path, weights: Path, photos: Path) -> None:
    whole = run(tmp_path, weights, "onnx", verify=False)
    done = run(tmp_path, weights, "onnx", int8=True, data=str(photos))
    assert done.megabytes < 0.5 * whole.megabytes
    assert done.parity is not None
    assert done.parity.tolerance is None
    assert done.parity.matched > 0.5 * done.parity.detections


@pytest.mark.slow
def test_int8_files_of_a_network_with_depthwise_convolutions_detect_as_well(
    tmp_path: Path, reference: Path, photos: Path
) -> None:
    """With every convolution in INT8, almost no detection was right."""
    done = run(tmp_path, reference / "weights/yolox_nano.pth", "onnx", int8=True, data=str(photos), img=(320, 320))
    assert done.parity is not None
    assert done.parity.matched > 0.5 * done.parity.detections
    assert done.map50_95 is not None
    before, after = done.map50_95
    assert after > 0.8 * before


@pytest.mark.slow
def test_val_and_detect_run_an_exported_file(tmp_path: Path, weights: Path, photos: Path) -> None:
    done = run(tmp_path, weights, "onnx", dynamic=True, verify=False)
    results = [
        validate(
            ValConfig(weights=str(w), data=str(photos), img=(160, 160), plots=False, project=str(tmp_path / "v")),
            Silent(),
        )
        for w in (weights, done.path)
    ]
    assert results[1].metrics.map50_95 == pytest.approx(results[0].metrics.map50_95, abs=1e-3)
    photo = sorted(photos.parent.glob("images/*.jpg"))[0]
    ours, theirs = (load(w, img=160)(photo) for w in (weights, done.path))
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(theirs.xyxy, ours.xyxy, rtol=1e-3, atol=0.1)
    assert theirs.names == ours.names


def test_a_failed_parity_check_ends_with_status_4(
    tmp_path: Path, weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = FORMATS["torchscript"]

    def spoiled(spec: ExportSpec, path: Path) -> None:
        with torch.no_grad():
            spec.model.model[0].conv.weight.mul_(1.1)
        known.write(spec, path)

    table = {**FORMATS, "torchscript": replace(known, write=spoiled)}
    monkeypatch.setattr(formats, "FORMATS", table)
    arguments = ["--weights", str(weights), "--include", "torchscript", "--img", "128", "--project", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["export", *arguments])
    assert ended.value.code == 4
    out, err = capfd.readouterr()
    assert "DIFFERS from PyTorch" in out
    assert "synthetic image" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "tflite"}, "unknown format; known are torchscript, onnx"),
        ({"include": ""}, "names no format"),
        ({"include": "onnx", "int8": True}, "needs images to calibrate on; give --data"),
        ({"include": "ncnn", "nms": True}, "ncnn does not support it; formats that do"),
        ({"include": "torchscript", "int8": True, "data": "x"}, "torchscript does not support it"),
        ({"include": "onnx", "opset": 9}, "must be from 17"),
        ({"include": "onnx", "conf": 2.0}, "must be from 0 to 1"),
        ({"include": "onnx", "batch": 0}, "must be at least 1"),
    ],
)
def test_wrong_options_are_reported_before_anything_is_written(
    tmp_path: Path, weights: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(ExportConfig(weights=str(weights), project=str(tmp_path / "runs"), **options), Silent())
    assert not (tmp_path / "runs").exists()


def test_an_exported_file_is_not_exported_again(tmp_path: Path, weights: Path) -> None:
    done = run(tmp_path, weights, "torchscript", verify=False)
    with pytest.raises(UserError, match="is an exported model"):
        export(ExportConfig(weights=str(done.path), project=str(tmp_path / "runs")), Silent())


def test_an_existing_file_is_kept(tmp_path: Path, weights: Path) -> None:
    done = run(tmp_path, weights, "torchscript", verify=False, exist_ok=True)
    before = done.path.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        run(tmp_path, weights, "torchscript", verify=False, exist_ok=True)
    assert done.path.read_bytes() == before


def test_a_project_folder_that_cannot_be_made(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be created"):
        run(tmp_path, weights, "torchscript")


@pytest.mark.parametrize("name", ["torchscript", "onnx", "openvino", "pt2", "ncnn"])
@pytest.mark.parametrize("harm", ["cut", "noise"])
def test_a_damaged_file_is_reported_in_one_line(tmp_path: Path, name: str, harm: str) -> None:
    if missing := missing_requirement(name):
        pytest.skip(missing)
    known, path = FORMATS[name], tmp_path / f"m{FORMATS[name].suffix}"
    data = b"PK\x03\x04" if harm == "cut" else bytes(range(256)) * 20
    if known.folder:
        path.mkdir()
        for file in ("model.xml", "model.bin", "yolo_cli.json", "model.ncnn.param", "model.ncnn.bin"):
            (path / file).write_bytes(data)
    else:
        path.write_bytes(data)
    assert format_of(path) == name
    with pytest.raises(UserError) as raised:
        open_exported(path, CPU)
    assert str(path) in str(raised.value)


def test_an_onnx_file_of_another_program_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    a, b = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "ab")
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [a], [b]), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="contains no class names and sizes"):
        open_exported(tmp_path / "other.onnx", CPU)


def test_a_torchscript_file_is_announced_as_a_program(
    tmp_path: Path, weights: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(tmp_path, weights, "torchscript", verify=False)
    asked = ["val", "--weights", str(done.path), "--data", str(photos), "--img", "64", "--noplots", "--workers", "0"]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--project", str(tmp_path / "runs")])
    assert not ended.value.code
    stderr = capsys.readouterr().err
    assert "is a program, which runs now: use only files that you made" in stderr
    assert "takes only 160×128, so --img has no effect" in stderr
