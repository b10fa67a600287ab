"""A model without anchors trains, resumes and repeats; the last epochs can be without mosaic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.test_resume import assert_same, config, cut, state
from yolo_cli.commands.train import run as train
from yolo_cli.config import Hyperparameters, TrainConfig
from yolo_cli.dataset.loader import train_loader
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping, write_mapping
from yolo_cli.model.architecture import find_architecture
from yolo_cli.progress import Silent
from yolo_cli.train.hyperparameters import read_hyperparameters
from yolo_cli.train.train_data import open_train_data

CLOSING = {"close_mosaic": 1, "l1": 1.0, "nominal_batch": 4}


@pytest.fixture
def thin(tmp_path: Path) -> dict[str, Any]:
    """yolox-nano of an eighth of its width, and hyperparameters that close the mosaic."""
    mapping = find_architecture("yolox-nano").to_mapping()
    write_mapping(tmp_path / "thin.yaml", {**mapping, "width_multiple": mapping["width_multiple"] / 8})
    write_mapping(tmp_path / "hyp.yaml", CLOSING)
    return {"cfg": str(tmp_path / "thin.yaml"), "hyp": str(tmp_path / "hyp.yaml")}


@pytest.mark.parametrize(
    "after", [pytest.param(8, marks=pytest.mark.slow), pytest.param(14, marks=pytest.mark.slow)]
)  # before and in the epoch without mosaic
def test_an_interrupted_run_ends_with_the_same_bits(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchecked_shapes: None,
    thin: dict[str, Any],
    after: int,
) -> None:
    train(config(small, tmp_path, name="whole", **thin), Silent())
    cut(config(small, tmp_path, name="cut", **thin), monkeypatch, after)
    torch.manual_seed(99)  # a new process begins with another state
    np.random.seed(99)
    train(TrainConfig(resume=str(tmp_path / "cut")), Silent())
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert read_mapping(tmp_path / "whole/opt.yaml")["loss"] == "simota"  # that of the model


@pytest.mark.parametrize("changes", [{"single_cls": True, "img": (64, 96)}, {"rect": True}, {"freeze": (10,)}], ids=str)
@pytest.mark.slow
def test_options_train(small: Path, tmp_path: Path, thin: dict[str, Any], changes: dict[str, Any]) -> None:
    result = train(config(small, tmp_path, epochs=1, **thin, **changes), Silent())
    assert all(0 <= value < 100 for value in result.evaluation.losses)


def test_a_loss_for_anchors_is_refused_before_anything_starts(
    small: Path, tmp_path: Path, thin: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="--loss anchor: yolox-nano has no anchors"):
        train(config(small, tmp_path / "runs", **thin, loss="anchor"), Silent())
    assert not (tmp_path / "runs").exists()


def test_the_last_epochs_have_no_mosaic_and_no_mixup(small: Path) -> None:
    index = open_train_data(TrainConfig(data=str(small)), 0, Silent()).train.index

    def batches(epoch: int, **hyp: float) -> list[torch.Tensor]:
        values = Hyperparameters(**{"mixup": 1.0, **hyp})
        loader = train_loader(index, img=(64, 64), batch=8, hyp=values, seed=0, workers=0)
        loader.set_epoch(epoch, mosaic=epoch < 2)
        return [batch.targets for batch in loader]

    sizes = [sum(len(targets) for targets in batches(epoch)) for epoch in (1, 2)]
    assert sizes[0] > 2 * sizes[1]  # eight images instead of one
    for one, other in zip(batches(2), batches(2, mosaic=0.0), strict=True):
        assert one.shape == other.shape  # of the same images


def test_l1_without_epochs_for_it_is_refused() -> None:
    with pytest.raises(UserError, match="close_mosaic is 0"):
        Hyperparameters(l1=1.0)


@pytest.mark.parametrize("name", ["yolox", "yolox-small"])
def test_the_published_schedule_is_shipped(name: str) -> None:
    hyp = read_hyperparameters(name, Silent()).with_defaults()
    assert (hyp.close_mosaic, hyp.l1, hyp.warmup_epochs, hyp.lrf) == (15, 1.0, 5.0, 0.05)
