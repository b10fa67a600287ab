"""Exports of unusual models and datasets, and unusual exported files."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.recording import Recording
from yolo_cli.commands.benchmark import run as benchmark
from yolo_cli.commands.export import ExportResult
from yolo_cli.commands.export import run as export
from yolo_cli.config import BenchmarkConfig, ExportConfig
from yolo_cli.errors import UserError
from yolo_cli.export import formats
from yolo_cli.export.formats import FORMATS, missing_requirement, open_exported
from yolo_cli.export.metadata import Metadata, NMSSettings, from_text
from yolo_cli.export.spec import ExportSpec
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent
from yolo_cli.weights import checkpoint
from yolo_cli.weights.networks import find_network

CPU = torch.device("cpu")


def run(tmp_path: Path, weights: Path, include: str, reporter: Any = None, **options: Any) -> list[ExportResult]:
    for name in include.split(","):
        if missing := missing_requirement(name):
            pytest.skip(missing)
    given = {"img": (64, 96), "project": str(tmp_path / "runs"), **options}
    return export(ExportConfig(weights=str(weights), include=include, **given), reporter or Silent())


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """Weights of an untrained model, whose confidences are all close to 0."""
    torch.manual_seed(0)
    model = DetectionModel(find_network("yolov5n")).eval()
    with torch.no_grad():
        for head in model.head.modules():
            if isinstance(head, torch.nn.Conv2d) and head.bias is not None:
                head.bias.view(3, -1)[:, 4] -= 6
    checkpoint.save(tmp_path / "untrained.pt", model, epoch=0)
    return tmp_path / "untrained.pt"


@pytest.mark.slow
def test_boxes_of_an_untrained_model_are_compared(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Recording()
    (done,) = run(tmp_path, untrained, "torchscript", reporter)
    assert done.parity is not None
    assert done.parity.passed
    assert done.parity.matched > 5
    assert any("only boxes are checked" in line for line in reporter.lines)
    known = FORMATS["torchscript"]

    def misplaced(spec: ExportSpec, path: Path) -> None:
        spec.model.head.anchors.mul_(1.5)
        known.write(spec, path)

    monkeypatch.setattr(formats, "FORMATS", {**FORMATS, "torchscript": replace(known, write=misplaced)})
    (wrong,) = run(tmp_path, untrained, "torchscript")
    assert wrong.parity is not None
    assert not wrong.parity.passed


def test_a_check_without_detections_is_a_warning(tmp_path: Path, untrained: Path) -> None:
    reporter = Recording()
    (done,) = run(tmp_path, untrained, "torchscript", reporter, nms=True)
    assert done.parity is not None
    assert not done.parity.compared
    assert any("neither PyTorch nor the file detects anything; give --data" in line for line in reporter.lines)
    assert not any("same as PyTorch" in line for line in reporter.lines)


def test_a_file_that_its_runtime_cannot_run_fails_the_check(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = FORMATS["torchscript"]

    def of_another_size(spec: ExportSpec, path: Path) -> None:
        class Fixed(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return images + torch.zeros(1, 3, 7, 7)

        extra = {"yolo_cli.json": spec.metadata.to_json().encode()}
        torch.jit.save(torch.jit.trace(Fixed(), torch.rand(1, 3, 7, 7)), str(path), _extra_files=extra)

    monkeypatch.setattr(formats, "FORMATS", {**FORMATS, "torchscript": replace(known, write=of_another_size)})
    (done,) = run(tmp_path, weights, "torchscript")
    assert done.parity is not None
    assert not done.parity.passed
    assert "its runtime fails on images of 1 × 3 × 64 × 96" in done.parity.violations[0]
    with pytest.raises(UserError, match="its runtime fails"):
        open_exported(done.path, CPU).predict(torch.rand(1, 3, 64, 96))


@pytest.mark.slow
def test_dynamic_captured_programs_are_checked_at_sizes_that_they_accept(tmp_path: Path, weights: Path) -> None:
    (done,) = run(tmp_path, weights, "pt2", dynamic=True)
    assert done.parity is not None
    assert done.parity.passed, done.parity.violations
    with pytest.raises(UserError, match="its runtime fails on images of 1 × 3 × 32 × 32"):
        open_exported(done.path, CPU).predict(torch.rand(1, 3, 32, 32))


def test_a_damaged_package_of_native_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m_aoti.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/code.so", bytes(1000))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged at m/code\.so"):
        open_exported(path, CPU)


def test_a_damaged_openvino_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    if missing := missing_requirement("openvino"):
        pytest.skip(missing)
    folder = tmp_path / "m_openvino_model"
    folder.mkdir()
    for file in ("model.xml", "model.bin"):
        (folder / file).write_bytes(b"hello world\n" * 20)
    command = [sys.executable, "-m", "yolo_cli", "detect", "--weights", str(folder), "--source", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr


def test_metadata_with_invalid_thresholds_is_refused() -> None:
    texts = Metadata(("a",), 32, (64, 64), 1, nms=NMSSettings(0.25, 0.45, 300)).to_text()
    with pytest.raises(UserError, match="its metadata is not valid"):
        from_text({**texts, "nms": '{"conf": "x", "iou": null, "max_det": []}'}, where="m.onnx")


def test_cfg_is_refused_for_other_weights_than_darknets(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UserError, match="only Darknet weights take a network"):
        run(tmp_path, weights, "torchscript", cfg="yolov5n.yaml")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_second_export_into_a_folder_extends_the_report(tmp_path: Path, weights: Path) -> None:
    (first,) = run(tmp_path, weights, "torchscript", exist_ok=True, verify=False)
    folder = first.path.parent
    before = {name: (folder / name).read_bytes() for name in ("report.json", "opt.yaml")}
    with pytest.raises(UserError, match="exists already"):
        run(tmp_path, weights, "torchscript", exist_ok=True, verify=False)
    assert {name: (folder / name).read_bytes() for name in before} == before
    run(tmp_path, weights, "pt2", exist_ok=True, verify=False)
    assert list(json.loads((folder / "report.json").read_text())["formats"]) == ["torchscript", "pt2"]
    (folder / "report.json").write_text("[]")
    with pytest.raises(UserError, match="is not the report of an export"):
        run(tmp_path, weights, "onnx", exist_ok=True, verify=False)
    assert (folder / "report.json").read_text() == "[]"


def test_an_existing_file_beside_an_executorch_program_is_kept(tmp_path: Path, weights: Path) -> None:
    mine = tmp_path / "runs/exp" / f"{weights.stem}.pte.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        run(tmp_path, weights, "executorch", exist_ok=True, verify=False)
    assert mine.read_text() == "mine"


def make_dataset(folder: Path, names: list[str], label: str) -> Path:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(folder / f"images/{i}.png"), np.full((50, 70, 3), 40 * i, np.uint8))
        (folder / f"labels/{i}.txt").write_text(label)
    write_mapping(folder / "data.yaml", {"path": str(folder), "train": "images", "val": "images", "names": names})
    return folder / "data.yaml"


ODD = ["a'b\"c", "ünï 😀 漢字", "new\nline\ttab", "<x>&amp;]]>", "back\\slash %s {0}", "\x7f\u2028", "a,b: #c"]


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, Path]:
    """Weights and a dataset whose class names have odd characters."""
    torch.manual_seed(0)
    model = DetectionModel(replace(find_network("yolov5n"), nc=len(ODD)), tuple(ODD)).eval()
    checkpoint.save(tmp_path / "odd.pt", model, epoch=0)
    return tmp_path / "odd.pt", make_dataset(tmp_path / "data", ODD, "")


@pytest.mark.slow
def test_odd_class_names_are_kept_and_a_dataset_without_objects_has_no_map(
    tmp_path: Path, odd: tuple[Path, Path]
) -> None:
    reporter = Recording()
    for done in run(tmp_path, odd[0], "torchscript,onnx,openvino,pt2,ncnn", reporter, data=str(odd[1])):
        assert open_exported(done.path, CPU).metadata.names == tuple(ODD)
    assert sum("unknown: the dataset has no objects" in line for line in reporter.lines) == 5
    assert not any("nan" in line for line in reporter.lines)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_calibration_with_fewer_images_than_a_batch(tmp_path: Path, odd: tuple[Path, Path], name: str) -> None:
    (done,) = run(tmp_path, odd[0], name, int8=True, batch=8, data=str(odd[1]), verify=False)
    assert open_exported(done.path, CPU).metadata.int8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half": True, "int8": True}, "exclude each other"),
        ({"include": ","}, "names no format"),
        ({"include": "coreml"}, "runs only on macOS"),
        ({"include": "ncnn", "int8": True}, "ncnn does not support it"),
        ({"weights": "x.onnx"}, r"is an exported model \(onnx\)"),
        ({"weights": "x_openvino_model"}, r"is an exported model \(openvino\)"),
    ],
)
def test_a_benchmark_checks_its_options_first(
    tmp_path: Path, weights: Path, options: dict[str, Any], message: str
) -> None:
    if options.get("include") in FORMATS and (missing := missing_requirement(options["include"])):
        pytest.skip(missing)
    config = {"weights": str(weights), "project": str(tmp_path / "runs"), **options}
    with pytest.raises(UserError, match=message):
        benchmark(BenchmarkConfig(**config), Silent())
    assert not (tmp_path / "runs").exists()
