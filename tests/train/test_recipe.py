"""What `--hyp auto` chooses."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recording import Recording
from yolo_cli.commands.train import run as train
from yolo_cli.config import OPTIMIZERS, Hyperparameters, TrainConfig
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.progress import Silent
from yolo_cli.train.hyperparameters import HypChoice
from yolo_cli.train.optim import Schedule, accumulation
from yolo_cli.train.recipe import Workload, choose_recipe

AUTO = HypChoice(automatic=True)
WORKLOADS = st.builds(
    Workload, st.integers(1, 200_000), st.integers(1, 256), st.integers(1, 500), pretrained=st.booleans()
)


@given(WORKLOADS, st.sampled_from(("", *OPTIMIZERS)))
def test_every_choice_is_valid_and_fits_the_run(workload: Workload, optimizer: str) -> None:
    recipe = choose_recipe(AUTO, workload, optimizer)
    hyp = recipe.hyp
    batches = -(-workload.images // workload.batch)
    schedule = Schedule(hyp, workload.epochs, batches, workload.batch)
    assert recipe.optimizer == (optimizer or recipe.optimizer)
    assert hyp.close_mosaic < workload.epochs
    if accumulation(hyp, workload.batch) == 1:  # a short run
        assert schedule.warmup_steps <= max(workload.batches / 2, 1)
        assert 1 / (1 - hyp.ema_decay) <= max(workload.batches, 10) * 1.001


@given(WORKLOADS, st.fixed_dictionaries({}, optional={"lr0": st.floats(0, 1), "mosaic": st.floats(0, 1)}))
def test_explicit_values_win(workload: Workload, values: dict[str, float]) -> None:
    hyp = choose_recipe(HypChoice(automatic=True, values=values), workload).hyp
    assert {name: getattr(hyp, name) for name in values} == values


def test_values_that_do_not_go_together_are_reported() -> None:
    with pytest.raises(UserError, match="--hyp: nominal_batch must be at least 1"):
        choose_recipe(HypChoice(automatic=True, values={"nominal_batch": 0}), Workload(100, 16, 10, pretrained=True))


def test_biases_warm_up_to_an_explicit_learning_rate() -> None:
    hyp = choose_recipe(HypChoice(automatic=True, values={"lr0": 0.0002}), Workload(100, 16, 10, pretrained=True)).hyp
    assert hyp.warmup_bias_lr == 0.0002


def test_a_file_is_taken_as_it_is() -> None:
    recipe = choose_recipe(HypChoice(values={"lr0": 0.02}), Workload(100, 16, 10, pretrained=True))
    assert (recipe.hyp, recipe.optimizer) == (Hyperparameters(lr0=0.02), "SGD")


@pytest.mark.parametrize(("classes", "weight"), [(0, 0.5), (1, 0.5), (2, 6.0), (6, 2.0), (24, 0.5), (80, 0.5)])
def test_few_classes_keep_the_class_loss_of_many(classes: int, weight: float) -> None:
    assert choose_recipe(AUTO, Workload(100, 16, 10, pretrained=True, classes=classes)).hyp.cls == weight
    assert choose_recipe(AUTO, Workload(100, 16, 10, pretrained=False, classes=classes)).hyp.cls == 0.5


def test_a_long_run_accumulates_as_the_published_recipe_does() -> None:
    recipe = choose_recipe(AUTO, Workload(118_000, 16, 300, pretrained=False))
    assert (recipe.optimizer, recipe.hyp.lr0, recipe.hyp.nominal_batch) == ("SGD", 0.01, 64)


@pytest.mark.slow
def test_a_run_records_what_was_chosen(small: Path, tmp_path: Path) -> None:
    reporter = Recording()
    options: dict[str, Any] = {"data": str(small), "cfg": str(small.parent / "tiny.yaml"), "img": (32, 32)}
    options |= {"epochs": 2, "batch": 4, "workers": 0, "noplots": True, "noautoanchor": True, "project": str(tmp_path)}
    train(TrainConfig(**options, hyp="auto,lr0=0.0007"), reporter)
    chosen = choose_recipe(AUTO, Workload(24, 4, 2, pretrained=False))
    written = read_mapping(tmp_path / "exp/hyp.yaml")
    assert written["lr0"] == 0.0007
    assert written["ema_decay"] == chosen.hyp.ema_decay != Hyperparameters().ema_decay
    assert read_mapping(tmp_path / "exp/opt.yaml")["optimizer"] == chosen.optimizer
    (line,) = [text for text in reporter.lines if "from scratch, a short run" in text]
    assert "lr0 0.0007" in line
    train(TrainConfig(**options, hyp=str(tmp_path / "exp/hyp.yaml"), optimizer=chosen.optimizer), Silent())
    tables = [(tmp_path / run / "results.csv").read_text() for run in ("exp", "exp2")]
    assert tables[0] == tables[1]  # the written values are those of the run


@pytest.mark.parametrize(("images", "window"), [(1, 0), (1023, 0), (1024, 512), (100_000, 512)])
def test_large_datasets_have_mosaics_of_neighbors(images: int, window: int) -> None:
    assert choose_recipe(AUTO, Workload(images, 16, 10, pretrained=True)).hyp.mosaic_window == window
