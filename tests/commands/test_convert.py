"""`yolo convert` and `yolo info`, run through the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recording import Recording
from yolo_cli.cli.app import main
from yolo_cli.commands.train import run as train
from yolo_cli.commands.val import run as validate
from yolo_cli.config import TrainConfig, ValConfig
from yolo_cli.io import assets
from yolo_cli.model.architecture import find_architecture, read_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Silent
from yolo_cli.weights import checkpoint
from yolo_cli.weights.darknet.network import read_network
from yolo_cli.weights.load import load_weights


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(str(ended.value.code))


def test_checkpoint_to_darknet_and_back(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, target in (("ours.pt", "a.weights"), ("a.weights", "b.pt"), ("b.pt", "c.weights")):
        assert run("convert", tmp_path / source, tmp_path / target) == 0
    assert f"wrote {tmp_path / 'a.cfg'}" in capsys.readouterr().out
    assert (tmp_path / "a.weights").read_bytes() == (tmp_path / "c.weights").read_bytes()
    assert (tmp_path / "a.cfg").read_text() == (tmp_path / "c.cfg").read_text()
    first, last = (load_weights(tmp_path / name).build_model().eval() for name in ("ours.pt", "c.weights"))
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(last.decode(last(image)), first.decode(first(image)))


def test_published_weights_come_back_byte_for_byte(reference: Path, tmp_path: Path) -> None:
    published = reference / "weights/yolo-fastest-1.1.weights"
    assert run("convert", published, tmp_path / "a.pt") == 0
    assert run("convert", tmp_path / "a.pt", tmp_path / "b.weights") == 0
    assert (tmp_path / "b.weights").read_bytes() == published.read_bytes()
    assert read_network(tmp_path / "b.cfg").height == 320


@pytest.mark.slow
def test_a_published_checkpoint_becomes_ours(reference: Path, tmp_path: Path) -> None:
    assert run("convert", reference / "weights/yolov5n.pt", tmp_path / "a.pt") == 0
    theirs, mine = load_weights(reference / "weights/yolov5n.pt"), load_weights(tmp_path / "a.pt")
    assert (mine.origin, mine.names) == ("yolo_cli", theirs.names)
    assert all(torch.equal(mine.state[key], value) for key, value in theirs.build_model().state_dict().items())


def test_an_architecture_becomes_yaml(tmp_path: Path, cfg: Path) -> None:
    assert run("convert", cfg, tmp_path / "net.yaml") == 0
    assert read_architecture(tmp_path / "net.yaml") == read_network(cfg).architecture


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("ours.pt", "ours.pt", "exists already"),
        ("ours.pt", "net.weights", "net.cfg: exists already"),
        ("ours.pt", "a.onnx", "unknown format"),
        ("ours.pt", "nowhere/a.pt", "no such folder"),
        ("net.cfg", "a.pt", "has no weights"),
        ("missing.pt", "a.pt", "no such weight file"),
        ("missing.cfg", "a.yaml", "no such file"),
        ("n.pt", "a.weights", "has no counterpart in Darknet"),
        ("n.pt", "a.cfg", "has no counterpart in Darknet"),
    ],
)
def test_impossible_conversions_are_refused(
    tmp_path: Path, ours: Path, source: str, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if source == "n.pt":
        checkpoint.save(tmp_path / "n.pt", DetectionModel(find_architecture("n")), epoch=0)
    before = sorted(tmp_path.iterdir())
    assert run("convert", tmp_path / source, tmp_path / target) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_info_prints_the_reference_table(
    reference_file: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", "--cfg", "n") == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = reference_file("reference/tables/yolov5-v7.0/yolov5n.txt").read_text().splitlines()
    rows = [line.split() for line in table if line.strip()[:1].isdigit()]
    assert len(rows) == 25
    assert printed[1:26] == rows


def test_info_describes_a_checkpoint(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--weights", ours, "--img", "64") == 0
    printed = capsys.readouterr().out
    for text in (
        "11 layers", "GFLOPs at 64×64", "strides [8, 4]", "24 24 40 40; 8 8 16 16", "3 classes: circle, square",
        "epoch 5", "not fused",
    ):  # fmt: skip
        assert text in printed


def test_info_lists_the_architectures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "names", lambda kind: ["yolov5n", "yolov5n6"])  # the largest take seconds to build
    assert run("info", "--cfg", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["yolov5n", "yolov5n6"]
    assert "1,872,157 parameters" in lines[0]


@pytest.mark.parametrize(
    "arguments", [[], ["--cfg", "yolov99"], ["--weights", "no.pt"], ["--cfg", "n", "--weights", "a"]], ids=" ".join
)
def test_info_with_bad_options_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_darknet_network_is_trained_evaluated_and_converted(tmp_path: Path, cfg: Path, data: Path) -> None:
    common: dict[str, Any] = {"data": str(data), "img": (64, 64), "workers": 0, "device": "cpu"}
    options = TrainConfig(
        cfg=str(cfg), epochs=4, batch=4, noplots=True, project=str(tmp_path / "runs"), optimizer="AdamW", **common
    )
    result = train(options, Silent())
    losses = [float(line.split(",")[1]) for line in (result.folder / "results.csv").read_text().splitlines()[1:]]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    best = result.folder / "weights/best.pt"
    assert run("convert", best, tmp_path / "trained.weights") == 0
    evaluated = []
    reporter = Recording()
    for name, network in ((best, ""), (tmp_path / "trained.weights", str(tmp_path / "trained.cfg"))):
        val = ValConfig(weights=str(name), cfg=network, plots=False, project=str(tmp_path / "evaluated"), **common)
        evaluated.append(validate(val, reporter).metrics.to_dict()["metrics"])
    assert evaluated[0] == evaluated[1]
    more = TrainConfig(
        weights=str(tmp_path / "trained.weights"),
        epochs=1,
        batch=4,
        noplots=True,
        project=str(tmp_path / "runs"),
        **common,
    )
    train(more, reporter)
    assert any("tensors loaded" in line and "not loaded" not in line for line in reporter.lines)
