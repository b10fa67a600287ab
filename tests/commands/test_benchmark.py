"""`yolo benchmark`: each row evaluates and times the same model in the same precision."""

from pathlib import Path

import pytest
import torch

from yolo_cli.commands.benchmark import PYTORCH, Setup, measured_row, pytorch_in_half, run
from yolo_cli.commands.convert import run as convert
from yolo_cli.config import BenchmarkConfig, ConvertConfig
from yolo_cli.dataset.splits import class_names, load_split, prepare_dataset
from yolo_cli.export.torch_runtime import TorchRuntime
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("half", "device", "expected"),
    [(True, "cuda:0", True), (True, "cpu", False), (True, "mps", False), (False, "cuda:0", False)],
)
def test_pytorch_runs_in_half_precision_on_a_gpu_only(half: bool, device: str, expected: bool) -> None:
    assert pytorch_in_half(BenchmarkConfig(half=half), torch.device(device)) is expected


@pytest.mark.parametrize(
    ("half", "dtype"), [(True, torch.float16), pytest.param(False, torch.float32, marks=pytest.mark.slow)]
)
def test_the_evaluated_model_has_the_precision_of_the_timed_one(
    half: bool, dtype: torch.dtype, ours: Path, data: Path, tmp_path: Path
) -> None:
    config = BenchmarkConfig(weights=str(ours), data=str(data), img=(64, 64), images=1)
    spec = prepare_dataset(config.data, Silent())
    split = load_split(spec, "val", single_cls=False, strict=False, workers=0, reporter=Silent())
    setup = Setup(config, CPU, split, class_names(spec, single_cls=False), tmp_path)
    model = load_model(ours, CPU, Silent(), half=half)
    evaluated = set()
    assert isinstance(model.runtime, TorchRuntime)
    model.runtime.model.register_forward_pre_hook(lambda module, inputs: evaluated.add(inputs[0].dtype))
    row = measured_row(setup, PYTORCH, model, 1.0, None, Silent())
    assert evaluated == {dtype}
    assert f"torch.{row.precision}" == str(dtype)


@pytest.mark.slow
def test_darknet_weights_are_compared_with_their_exports(
    ours: Path, data: Path, tmp_path: Path, unchecked_shapes: None
) -> None:
    """The .cfg belongs to the weights; an exported file takes none."""
    convert(ConvertConfig(str(ours), str(tmp_path / "net2.weights")), Silent())
    config = BenchmarkConfig(
        weights=str(tmp_path / "net2.weights"),
        cfg=str(tmp_path / "net2.cfg"),
        data=str(data),
        include="torchscript",
        img=(64, 64),
        images=1,
        project=str(tmp_path / "runs"),
    )
    rows = run(config, Silent())
    assert [row.name for row in rows] == [PYTORCH, "torchscript"]
