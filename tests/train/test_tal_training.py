"""A model without objectness trains, resumes and repeats, and takes what it can from a checkpoint of YOLOv5."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recording import Recording
from tests.train.test_resume import assert_same, config, cut, state
from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Silent
from yolo_cli.train.setup import build_model
from yolo_cli.weights.load import load_weights


@pytest.fixture
def thin(small: Path) -> dict[str, Any]:
    return {"cfg": str(small.parent / "tiny-tal.yaml")}


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked_shapes: None, thin: dict[str, Any]
) -> None:
    train(config(small, tmp_path, name="whole", **thin), Silent())
    cut(config(small, tmp_path, name="cut", **thin), monkeypatch, 8)  # in the middle of the second epoch
    torch.manual_seed(99)  # a new process begins with another state
    np.random.seed(99)
    train(TrainConfig(resume=str(tmp_path / "cut")), Silent())
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert read_mapping(tmp_path / "whole/opt.yaml")["loss"] == "tal"  # that of the model
    with (tmp_path / "whole/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["train/obj_loss"]) > 0 for row in rows)  # the distribution focal loss


@pytest.mark.parametrize(
    "changes", [{"single_cls": True, "img": (64, 96)}, {"freeze": (10,), "image_weights": True}], ids=str
)
@pytest.mark.slow
def test_options_train(small: Path, tmp_path: Path, thin: dict[str, Any], changes: dict[str, Any]) -> None:
    result = train(config(small, tmp_path, epochs=1, **thin, **changes), Silent())
    assert all(0 <= value < 100 for value in result.evaluation.losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "anchor"}, "--loss anchor: .* has no objectness; give --loss tal"),
        ({"hyp": "auto,fl_gamma=1.5"}, "fl_gamma has no effect with --loss tal"),
        ({"label_smoothing": 0.1}, "has no effect with --loss tal"),
    ],
)
def test_what_has_no_effect_is_refused_before_anything_starts(
    small: Path, tmp_path: Path, thin: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(config(small, tmp_path / "runs", **{**thin, **changes}), Silent())
    assert not (tmp_path / "runs").exists()


def test_backbone_and_neck_come_from_a_checkpoint_of_yolov5(reference_file: Callable[[str], Path]) -> None:
    reporter = Recording()
    source = load_weights(reference_file("weights/yolov5n.pt"))
    model = build_model(TrainConfig(cfg="n-tal"), source, ["a", "b"], reporter)
    (line,) = [line for line in reporter.lines if "tensors loaded" in line]
    assert "342 of 444 tensors loaded; not loaded: model.24.anchors (set by the architecture)" in line
    for key, value in model.state_dict().items():
        assert key.startswith("model.24.") or torch.equal(value, source.state[key])


@pytest.mark.slow
def test_weights_of_such_a_model_are_read_back(tmp_path: Path, small: Path, thin: dict[str, Any]) -> None:
    result = train(config(small, tmp_path, epochs=1, **thin), Silent())
    weights = load_weights(result.folder / "weights/best.pt")
    model = weights.build_model().eval()
    assert (weights.architecture.loss, model.head.has_objectness) == ("tal", False)
    saved = torch.load(result.folder / "weights/best.pt", weights_only=True)
    assert saved is not None
