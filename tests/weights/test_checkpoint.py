import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.weights import checkpoint
from yolo_cli.weights.load import find_weights, load_weights


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(1)
    return DetectionModel(find_architecture("n").with_classes(3), ("a", "b", "c"))


def test_a_saved_model_is_restored(tmp_path: Path, model: DetectionModel) -> None:
    checkpoint.save(tmp_path / "a.pt", model, epoch=4)
    weights = load_weights(tmp_path / "a.pt")
    again = weights.build_model()
    assert weights.epoch == 4
    assert again.names == ("a", "b", "c")
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_a_checkpoint_holds_plain_data_only(tmp_path: Path, model: DetectionModel) -> None:
    checkpoint.save(tmp_path / "a.pt", model, epoch=0)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["format"] == checkpoint.FORMAT
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "a.pt") == []


def test_published_weights_are_read_with_names_and_architecture(reference: Path) -> None:
    weights = load_weights(reference / "weights/yolov5n.pt")
    assert weights.origin == "pytorch"
    assert len(weights.names) == 80
    assert weights.names[0] == "person"
    assert all(value.dtype != torch.float16 for value in weights.state.values())
    built = weights.build_model()
    assert built.strides == (8, 16, 32)
    assert sum(p.numel() for p in built.parameters()) == 1867405 + 4752  # BN weights of a published, unfused nano


class Runs:
    """A pickle that would run a command when it is loaded."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (torch.hub.load, "load")],
    ids=["os.system", "eval", "getattr", "torch.hub"],
)
def test_no_code_of_a_file_runs(tmp_path: Path, form: str, function: object, name: str) -> None:
    canary = tmp_path / "canary"
    trap = Runs(function, f"touch {canary}" if function is os.system else f"open({str(canary)!r}, 'w')")
    torch.save({"model": trap}, tmp_path / "evil.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "evil.pt")
    assert not canary.exists()
    assert "\n" not in str(caught.value)
    if form == "zip":
        assert name in str(caught.value)
        assert "nothing of it was run" in str(caught.value)


def truncated(path: Path, model: DetectionModel) -> None:
    checkpoint.save(path, model, epoch=0)
    path.write_bytes(path.read_bytes()[:100_000])


def inflating(path: Path, model: DetectionModel) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x00" * 50_000_000)


def newer(path: Path, model: DetectionModel) -> None:
    torch.save({"format": checkpoint.FORMAT, "version": 99}, path)


def incomplete(path: Path, model: DetectionModel) -> None:
    torch.save({"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "names": []}, path)


def plain_tensors(path: Path, model: DetectionModel) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "not a readable checkpoint"),
        (inflating, "unpacks to"),
        (newer, "version 99"),
        (incomplete, "incomplete"),
        (plain_tensors, "holds no YOLO model"),
        (lambda path, _: path.write_bytes(b""), "not a readable checkpoint"),
        (lambda path, _: path.write_bytes(b"not a checkpoint at all" * 10), "not a readable checkpoint"),
    ],
    ids=["truncated", "zip bomb", "newer", "incomplete", "plain tensors", "empty", "text"],
)
def test_a_bad_file_is_reported_in_one_line(tmp_path: Path, model: DetectionModel, make: object, message: str) -> None:
    path = tmp_path / "bad.pt"
    make(path, model)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def test_the_error_for_a_missing_file_says_where_to_get_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"free published weights by name: yolox-nano"):
        find_weights(str(tmp_path / "yolov5s.pt"))


def test_weights_that_do_not_fit_the_architecture_are_reported(tmp_path: Path, model: DetectionModel) -> None:
    checkpoint.save(tmp_path / "a.pt", model, epoch=0)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["model"]["model.0.conv.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"model\.0\.conv\.weight"):
        load_weights(tmp_path / "a.pt").build_model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.0.bn.running_mean"), r"model\.0\.bn\.running_mean is missing"),
        (lambda state: state.update(surplus=torch.zeros(1)), "the network has no surplus"),
        (lambda state: state.update({"model.0.bn.bias": torch.zeros(3)}), r"bias has the shape \(3,\), not \(16,\)"),
    ],
    ids=["missing", "surplus", "shape"],
)
def test_a_difference_from_the_architecture_is_named(
    tmp_path: Path, model: DetectionModel, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    checkpoint.save(tmp_path / "a.pt", model, epoch=0)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    change(content["model"])
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"do not fit its architecture: .*{message}"):
        load_weights(tmp_path / "a.pt").build_model()


@pytest.mark.parametrize("state", [{}, {"a": torch.zeros(1).expand(10**9)}], ids=["none", "one repeated"])
def test_a_model_larger_than_its_file_is_not_built(
    tmp_path: Path, model: DetectionModel, state: dict[str, torch.Tensor]
) -> None:
    checkpoint.save(tmp_path / "a.pt", model, epoch=0)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["model"] = state
    content["architecture"]["width_multiple"] = 1.0
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"do not fit its architecture: [\d,]+ parameters, expected at most [\d,]+"):
        load_weights(tmp_path / "a.pt").build_model()


FULL = """
import resource, signal, sys
from pathlib import Path
from yolo_cli.errors import UserError
from yolo_cli.weights import checkpoint
from yolo_cli.weights.load import load_weights

path = Path(sys.argv[1])
model = load_weights(path).build_model()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing on is then an error, as on a full device
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    checkpoint.save(path, model, epoch=2)
except UserError as error:
    print(error)
"""


def test_a_full_device_leaves_the_old_checkpoint_intact(tmp_path: Path, model: DetectionModel) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, model, epoch=1)
    before = path.read_bytes()
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True).stdout
    assert "cannot be written" in said
    assert said.count("\n") == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
