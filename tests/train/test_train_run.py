"""Complete trainings on a small dataset: the files they write, and that they repeat to the bit."""

import csv
import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import yolo_cli
from tests.recording import Recording
from yolo_cli.commands.train import run as train
from yolo_cli.commands.val import run as validate
from yolo_cli.config import TrainConfig, ValConfig
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import read_mapping, write_mapping
from yolo_cli.model.architecture import find_architecture
from yolo_cli.progress import Silent
from yolo_cli.run.loggers import COLUMNS
from yolo_cli.train import step
from yolo_cli.weights.load import load_weights

TRAINED = """
opt.yaml hyp.yaml model.yaml results.csv results.json results.png weights/last.pt weights/best.pt labels.jpg
train_batch0.jpg train_batch1.jpg train_batch2.jpg val_batch0_labels.jpg val_batch0_pred.jpg
confusion_matrix.png PR_curve.png F1_curve.png P_curve.png R_curve.png dataset_report.json
""".split()  # noqa: SIM905 - a list of quoted names would be longer and no clearer
METRICS = ["precision", "recall", "F1", "mAP_0.5", "mAP_0.75", "mAP_0.5:0.95", "mAP_small", "mAP_medium", "mAP_large"]


def options(data: Path, folder: Path, **changes: Any) -> TrainConfig:
    base = {
        "cfg": str(data.parent / "tiny.yaml"),
        "data": str(data),
        "img": (64, 64),
        "epochs": 1,
        "batch": 8,
        "workers": 0,
        "project": str(folder),
        "noplots": True,
        "device": "cpu",
    }
    return TrainConfig(**(base | changes))


def thin(name: str, width: float, folder: Path) -> str:
    """A shipped architecture, thin enough for a test."""
    write_mapping(folder / f"{name}.yaml", {**find_architecture(name).to_mapping(), "width_multiple": width})
    return str(folder / f"{name}.yaml")


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_weights(run / "weights/last.pt").state)


def test_a_run_writes_all_its_files(small: Path, tmp_path: Path) -> None:
    before = sorted(small.parent.rglob("*"))
    reporter = Recording()
    result = train(options(small, tmp_path, epochs=2, noplots=False), reporter)
    for name in TRAINED:
        assert (result.folder / name).stat().st_size > 0, name
    assert list(result.folder.glob("events.out.tfevents.*"))
    assert sorted(small.parent.rglob("*")) == before  # the user's folder is unchanged

    rows = list(csv.reader((result.folder / "results.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1:]] == ["0", "1"]
    assert all(cell == cell.strip() and float(cell) >= 0 for row in rows[1:] for cell in row)

    content = json.loads((result.folder / "results.json").read_text())
    assert set(content["metrics"]) == set(METRICS)
    assert {row["name"] for row in content["per_class"]} == {"circle", "square", "triangle"}
    assert content["versions"]["torch"] == metadata.version("torch")
    assert content["versions"]["yolo_cli"] == yolo_cli.__version__
    assert content["dataset"]["train"]["fingerprint"] != content["dataset"]["val"]["fingerprint"]
    assert content["machine"]["cores"] >= 1

    assert read_mapping(result.folder / "model.yaml")["nc"] == 3
    assert read_mapping(result.folder / "opt.yaml")["epochs"] == 2
    assert any("mAP@.5" in line for line in reporter.lines)
    assert reporter.lines[-1] == f"results in {result.folder}"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_command_gives_the_same_bits(small: Path, tmp_path: Path, workers: int) -> None:
    settings = {"epochs": 2, "multi_scale": True, "image_weights": True}
    one = train(options(small, tmp_path, **settings), Silent())
    two = train(options(small, tmp_path, workers=workers, **settings), Silent())
    assert (one.folder / "results.csv").read_bytes() == (two.folder / "results.csv").read_bytes()
    mine, theirs = tensors(one.folder), tensors(two.folder)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.slow
def test_another_seed_gives_other_weights(small: Path, tmp_path: Path) -> None:
    one, two = (train(options(small, tmp_path, seed=seed), Silent()) for seed in (0, 1))
    assert not torch.equal(tensors(one.folder)["model.0.conv.weight"], tensors(two.folder)["model.0.conv.weight"])


@pytest.mark.parametrize(
    "changes",
    [
        {"rect": True},
        {"img": (64, 96)},
        {"single_cls": True},
        {"cache": "ram"},
        {"cache": "disk"},
        {"optimizer": "AdamW", "cos_lr": True, "label_smoothing": 0.1},
        {"freeze": (10,), "batch": 5},
        pytest.param({"cfg": "yolov5n6"}, marks=pytest.mark.slow),
        {"noval": True, "nosave": True, "epochs": 2},
        {"loss": "ota"},
        pytest.param({"loss": "ota", "cfg": "auxiliary"}, marks=pytest.mark.slow),
        pytest.param({"loss": "anchor", "cfg": "auxiliary"}, marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_every_option_trains(small: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes.get("cfg") == "auxiliary":
        changes = {**changes, "cfg": thin("yolov7-w6", 1 / 16, tmp_path)}
    result = train(options(small, tmp_path, **changes), Silent())
    assert all(0 <= value < 100 for value in result.evaluation.losses)
    assert (result.folder / "weights/best.pt").is_file()
    assert all(torch.isfinite(t).all() for t in tensors(result.folder).values() if t.is_floating_point())


@pytest.mark.slow
def test_frozen_layers_keep_their_weights_and_statistics(small: Path, tmp_path: Path) -> None:
    first = train(options(small, tmp_path), Silent())
    weights = str(first.folder / "weights/last.pt")
    second = train(options(small, tmp_path, cfg="", weights=weights, freeze=(5,), seed=3), Silent())
    before, after = tensors(first.folder), tensors(second.folder)
    frozen = [key for key in before if int(key.split(".")[1]) < 5]
    assert any("running_mean" in key for key in frozen)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["model.9.cv1.conv.weight"], after["model.9.cv1.conv.weight"])


def test_early_stop_and_periodic_checkpoints(small: Path, tmp_path: Path) -> None:
    reporter = Recording()
    # with a learning rate of almost 0, no epoch is better than the first except by chance
    hyp = tmp_path / "still.yaml"
    write_mapping(hyp, {"lr0": 1e-12, "warmup_bias_lr": 1e-12})
    result = train(options(small, tmp_path, epochs=12, patience=1, save_period=1, hyp=str(hyp)), reporter)
    assert result.epochs < 12
    assert any("stopped early" in line for line in reporter.lines)
    assert (result.folder / "weights/epoch1.pt").is_file()


def test_val_reproduces_the_metrics_of_train(small: Path, tmp_path: Path) -> None:
    trained = train(options(small, tmp_path), Silent())
    config = ValConfig(
        data=str(small), img=(64, 64), project=str(tmp_path), device="cpu", workers=0, batch=16, plots=False
    )
    reporter = Recording()
    again = validate(config, reporter)  # --weights left out
    assert str(trained.folder / "weights/best.pt") in reporter.lines[0]
    assert again.metrics.map50_95 == pytest.approx(trained.evaluation.metrics.map50_95, abs=1e-9)


def test_weights_of_another_class_count_are_loaded_in_part(small: Path, tmp_path: Path, reference: Path) -> None:
    reporter = Recording()
    train(options(small, tmp_path, cfg="", weights=str(reference / "weights/yolov5n.pt")), reporter)
    (line,) = [line for line in reporter.lines if "tensors loaded" in line]
    assert "not loaded: model.24.m.0.weight" in line


def test_weights_of_another_class_count_cannot_be_evaluated(small: Path, tmp_path: Path, reference: Path) -> None:
    config = ValConfig(weights=str(reference / "weights/yolov5n.pt"), data=str(small), project=str(tmp_path / "r"))
    with pytest.raises(UserError, match=r"has 80 classes, but .* has 3"):
        validate(config, Silent())
    assert not (tmp_path / "r").exists()


def test_an_image_size_is_rounded_up_to_the_stride(small: Path, tmp_path: Path) -> None:
    reporter = Recording()
    result = train(options(small, tmp_path, img=(50, 70)), reporter)
    assert any("--img 50 70 is not a multiple of the model's stride 32; 64 96 is used" in x for x in reporter.lines)
    assert read_mapping(result.folder / "opt.yaml")["img"] == [64, 96]


def test_a_diverging_loss_stops_and_names_the_batch(small: Path, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    write_mapping(hyp, {"lr0": 1e30, "warmup_bias_lr": 1e30, "clip_grad_norm": 0})
    with pytest.raises(UserError, match=r"the (loss|gradient) is not finite in epoch"):
        train(options(small, tmp_path, epochs=20, hyp=str(hyp)), Silent())


def test_strict_refuses_a_dataset_with_an_invalid_row(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small.parent, copy)
    with (copy / "labels/train/3.txt").open("a") as file:
        file.write("\n7 0.5 0.5 0.1 0.1\n")
    result = train(options(copy / "data.yaml", tmp_path), Silent())
    report = json.loads((result.folder / "dataset_report.json").read_text())
    (problem,) = report["train"]["problems"]
    assert problem["file"].endswith("labels/train/3.txt")
    assert problem["line"] > 0
    with pytest.raises(UserError, match=r"3\.txt:\d+"):
        train(options(copy / "data.yaml", tmp_path, strict=True), Silent())


@pytest.mark.slow
def test_an_early_stop_with_nosave_saves_the_weights(small: Path, tmp_path: Path) -> None:
    hyp = tmp_path / "still.yaml"
    write_mapping(hyp, {"lr0": 1e-12, "warmup_bias_lr": 1e-12})
    config = options(small, tmp_path, epochs=12, patience=1, nosave=True, hyp=str(hyp))
    result = train(config, Silent())
    assert result.epochs < 12
    assert load_weights(result.folder / "weights/best.pt").epoch == result.epochs - 1


def test_multi_scale_keeps_the_proportions_of_rectangular_batches(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[tuple[int, int], tuple[int, int]]] = []
    real = step.multi_scale_size

    def watched(seed: int, epoch: int, number: int, img: tuple[int, int], stride: int) -> tuple[int, int]:
        size = real(seed, epoch, number, img, stride)
        seen.append((img, size))
        return size

    monkeypatch.setattr(step, "multi_scale_size", watched)
    train(options(small, tmp_path, rect=True, multi_scale=True, img=(192, 192), batch=2), Silent())
    assert len({img for img, _ in seen}) > 1  # the batches' own canvases, not --img
    assert all(abs(size[k] / img[k] - 1) <= 0.5 + 32 / img[k] for img, size in seen for k in (0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": (25,)}, "every layer is frozen"),
        ({"freeze": (0, 99)}, "layers 0 to 24"),
        ({"batch": 1, "img": (32, 32)}, "batch norm"),
        ({"seed": 2**64}, "--seed"),
    ],
    ids=["all frozen", "no such layer", "one cell", "seed"],
)
def test_untrainable_options_are_refused_before_a_folder_is_created(
    small: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(options(small, tmp_path / "runs", **changes), Silent())
    assert not (tmp_path / "runs").exists()


def test_all_classes_can_be_evaluated_as_one(small: Path, tmp_path: Path) -> None:
    trained = train(options(small, tmp_path), Silent())
    config = ValConfig(
        weights=str(trained.folder / "weights/best.pt"),
        data=str(small),
        img=(64, 64),
        project=str(tmp_path),
        device="cpu",
        workers=0,
        plots=False,
        single_cls=True,
    )
    metrics = validate(config, Silent()).metrics
    assert [row.name for row in metrics.per_class] == ["object"]
    assert metrics.labels == trained.evaluation.metrics.labels
