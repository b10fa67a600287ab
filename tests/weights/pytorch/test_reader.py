"""Pickled checkpoints of other projects: every kind that exists, and hostile ones."""

import argparse
import datetime
import importlib
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import from_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.fuse import fuse
from yolo_cli.weights.load import load_weights
from yolo_cli.weights.pytorch.reader import read_checkpoint

YAML: dict[str, Any] = {
    "nc": 3,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [32, 3, 2]], [-1, 3, "C3", [64]], [-1, 1, "Conv", [64, 3, 2]]],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}
SOURCE = "from torch import nn\n" + "".join(
    f"class {name}(nn.Module):\n    pass\n" for name in ("Model", "Detect", "Conv", "C3", "Bottleneck")
)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Another project's package `models`: importable while a file is written, but not when it is read."""
    folder = tmp_path / "project/models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "yolo.py").write_text(SOURCE)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder.parent))
        yield importlib.import_module("models.yolo")
    for name in ("models.yolo", "models"):
        sys.modules.pop(name, None)


@pytest.fixture
def ours() -> DetectionModel:
    torch.manual_seed(3)
    model = DetectionModel(from_mapping(YAML, name="tiny", where="x"))
    for name, value in model.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    return model.eval()


def as_theirs(module: nn.Module, package: ModuleType) -> nn.Module:
    """The same module tree with the other project's classes."""
    theirs = getattr(package, type(module).__name__, None)
    copy = module
    if theirs is not None:
        copy = theirs()
        copy.__dict__.update(module.__dict__)
    copy.__dict__["_modules"] = {key: as_theirs(child, package) for key, child in module._modules.items() if child}
    return copy


def their_model(model: DetectionModel, package: ModuleType, names: Any = ("a", "b", "c")) -> nn.Module:
    theirs = package.Model()
    theirs.model = nn.Sequential(*(as_theirs(layer, package) for layer in model.model))
    theirs.yaml, theirs.names, theirs.nc = YAML, names, model.nc
    head = theirs.model[-1]
    head.stride = theirs.stride = torch.tensor(model.strides).float()
    return theirs


def save(content: Any, path: Path, *, legacy: bool) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def zip_with_ema(model: nn.Module, path: Path) -> None:
    save({"epoch": 3, "model": None, "ema": model.half(), "updates": 7}, path, legacy=False)


def legacy_bare(model: nn.Module, path: Path) -> None:
    save(model.float(), path, legacy=True)


def legacy_with_everything(model: nn.Module, path: Path) -> None:
    content = {
        "epoch": -1,
        "best_fitness": np.float64(0.3),
        "fitness": np.array([0.1, 0.2]),
        "training_results": "0/299 1.2G",
        "model": model.half(),
        "ema": None,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "opt": argparse.Namespace(epochs=3, save_dir=Path("runs/exp")),
        "date": datetime.datetime(2021, 4, 12, 9, 30),
        "root": Path("data"),
        "hyp": {"lr0": 0.01},
    }
    save(content, path, legacy=True)


def zip_with_everything(model: nn.Module, path: Path) -> None:
    content = {
        "best_fitness": np.float32(0.3),
        "model": model,
        "opt": argparse.Namespace(weights=Path("a.pt")),
        "date": datetime.datetime.now().isoformat(),
        "made": datetime.datetime.now(),
        "fitness": np.zeros(4),
    }
    save(content, path, legacy=False)


def parallel(model: nn.Module, path: Path) -> None:
    save({"model": nn.DataParallel(model)}, path, legacy=True)


def ema_with_count(model: nn.Module, path: Path) -> None:
    save({"ema": (model.half(), 12), "model": None}, path, legacy=False)


FORMS = [zip_with_ema, legacy_bare, legacy_with_everything, zip_with_everything, parallel, ema_with_count]


@pytest.mark.parametrize("write", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("names", [["a", "b", "c"], {0: "a", 1: "b", 2: "c"}], ids=["list", "dict"])
def test_every_kind_of_file_gives_the_same_model(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel, write: Callable[..., None], names: Any
) -> None:
    expected = {key: value.clone() for key, value in ours.state_dict().items()}
    path = tmp_path / "their.pt"
    write(their_model(ours, theirs, names), path)
    for name in ("models.yolo", "models"):
        del sys.modules[name]
    weights = load_weights(path)
    assert (weights.origin, weights.names, weights.was_fused) == ("pytorch", ("a", "b", "c"), False)
    assert "models" not in sys.modules
    found = weights.build_model().state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)  # some files are in half precision


def test_the_ema_weights_are_preferred(tmp_path: Path, theirs: ModuleType, ours: DetectionModel) -> None:
    model, average = (their_model(DetectionModel(ours.architecture), theirs) for _ in range(2))
    nn.init.constant_(average.model[0].conv.weight, 7.0)
    save({"model": model, "ema": average}, tmp_path / "a.pt", legacy=True)
    assert (load_weights(tmp_path / "a.pt").state["model.0.conv.weight"] == 7).all()


def test_anchors_are_read_from_the_tensors(tmp_path: Path, theirs: ModuleType, ours: DetectionModel) -> None:
    model = their_model(ours, theirs)
    model.model[-1].anchors *= 2  # as autoanchor does
    model.model[-1].register_buffer("anchor_grid", torch.ones(2, 1, 2, 1, 1, 2))  # stored by early releases, too
    save({"model": model}, tmp_path / "a.pt", legacy=True)
    weights = load_weights(tmp_path / "a.pt")
    assert weights.architecture.anchors == ((20, 26, 32, 60), (60, 122, 124, 90))
    assert weights.build_model().anchors_in_pixels() == [[20, 26, 32, 60], [60, 122, 124, 90]]


def test_a_fused_file_gives_the_same_outputs_and_can_be_trained(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel
) -> None:
    slim = fuse(ours)
    for module in slim.modules():
        if isinstance(module._modules.get("bn"), nn.Identity):
            del module._modules["bn"]  # as published files do
    image = torch.rand(1, 3, 32, 32)
    expected = ours.decode(ours(image))
    save({"model": their_model(slim, theirs)}, tmp_path / "a.pt", legacy=False)
    weights = load_weights(tmp_path / "a.pt")
    model = weights.build_model().eval()
    assert weights.was_fused
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(model.decode(model(image)), expected, rtol=1e-3, atol=1e-2)


def test_classes_are_numbered_where_the_file_has_too_few_names(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel
) -> None:
    save({"model": their_model(ours, theirs, names=["a"])}, tmp_path / "a.pt", legacy=True)
    assert load_weights(tmp_path / "a.pt").names == ("0", "1", "2")


@pytest.mark.parametrize("act", ["nn.Hardswish()", "nn.LeakyReLU(0.1)", "nn.ReLU()", "nn.SiLU()"])
def test_the_activation_is_read_from_the_modules(tmp_path: Path, theirs: ModuleType, act: str) -> None:
    model = DetectionModel(from_mapping({**YAML, "activation": act}, name="old", where="x")).eval()
    image = torch.rand(1, 3, 32, 32)
    expected = model.decode(model(image))  # before the model becomes theirs, in place
    save({"model": their_model(model, theirs)}, tmp_path / "a.pt", legacy=True)
    found = load_weights(tmp_path / "a.pt").build_model().eval()
    torch.testing.assert_close(found.decode(found(image)), expected)


def test_an_activation_that_a_block_cannot_have_is_refused(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel
) -> None:
    model = their_model(ours, theirs)
    model.model[1].cv1.act = nn.ReLU()
    save({"model": model}, tmp_path / "a.pt", legacy=True)
    with pytest.raises(UserError, match=r"model\.1\.cv1\.act is ReLU in the file, .* SiLU"):
        load_weights(tmp_path / "a.pt")


def test_batch_norms_with_another_epsilon_give_the_same_outputs(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel
) -> None:
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.3
    image = torch.rand(1, 3, 32, 32)
    expected = ours.decode(ours(image))
    save({"model": their_model(ours, theirs)}, tmp_path / "a.pt", legacy=True)
    found = load_weights(tmp_path / "a.pt").build_model().eval()
    torch.testing.assert_close(found.decode(found(image)), expected, rtol=1e-4, atol=1e-4)


class Calls:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (subprocess.getoutput, ("touch {canary}",), "getoutput"),
        (eval, ("open({canary!r}, 'w')",), "eval"),
        (exec, ("open({canary!r}, 'w')",), "exec"),
        (open, ("{canary}", "w"), "open"),
        (torch.load, ("{canary}",), "torch.serialization.load"),
        (torch.hub.load, ("{canary}", "x"), "torch.hub.load"),
        (importlib.import_module, ("antigravity",), "importlib.import_module"),
        (pickle.loads, (b"",), "loads"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_refusal_contains_the_name_that_the_file_uses(
    tmp_path: Path, legacy: bool, function: Any, args: tuple[Any, ...], name: str
) -> None:
    canary = tmp_path / "canary"
    filled = [arg.format(canary=str(canary)) if isinstance(arg, str) else arg for arg in args]
    save({"model": Calls(function, *filled)}, tmp_path / "evil.pt", legacy=legacy)
    with pytest.raises(UserError, match="nothing of it was run") as caught:
        load_weights(tmp_path / "evil.pt")
    assert name in str(caught.value)
    assert not canary.exists()


def test_torchs_switch_for_unsafe_loading_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    save(Calls(subprocess.getoutput, f"touch {canary}"), tmp_path / "evil.pt", legacy=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        load_weights(tmp_path / "evil.pt")
    assert not canary.exists()


def legacy_file(path: Path, main: bytes) -> None:
    """A file in the format before zip with the given bytes as its main pickle."""
    header = io.BytesIO()
    torch.save({}, header, _use_new_zipfile_serialization=False)
    header.seek(0)
    starts = []
    for _ in range(4):
        starts.append(header.tell())
        pickle.Unpickler(header).load()
    path.write_bytes(header.getvalue()[: starts[3]] + main + pickle.dumps([], 2))


HUGE_STORAGE = (
    b"\x80\x02((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    b"J\xff\xff\xff\x7fNtQtl."
)


@pytest.mark.parametrize(
    ("main", "message"),
    [
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "refused"),  # takes the name from the stack
        (b"\x80\x02(ios\nsystem\n.", "the file uses os.system"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "the file uses os.system"),
        (b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "__builtin__.eval"),
        (b"\x80\x02\x82\x01.", "refused"),  # an entry of the registry of extensions
        (b"\x80\x02]r\xff\xff\xff\x7f.", "absurd pickle"),  # a memo of two billion entries
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "holds no YOLO model"),  # nested lists
        (b"\x80\x02(" * 1000 + b".", "not a readable checkpoint"),
        (HUGE_STORAGE, "larger than the file|not a readable"),
    ],
    ids=["stack global", "inst", "global", "eval", "extension", "memo", "deep", "marks", "storage"],
)
def test_a_crafted_legacy_file_is_reported_in_one_line(tmp_path: Path, main: bytes, message: str) -> None:
    legacy_file(tmp_path / "evil.pt", main)
    with pytest.raises(UserError, match=message) as caught:
        load_weights(tmp_path / "evil.pt")
    assert str(tmp_path / "evil.pt") in str(caught.value)


def nested(model: nn.Module) -> None:
    inside = model.model
    for _ in range(60):
        inside = nn.Sequential(inside)
    model.model = inside


def in_itself(model: nn.Module) -> None:
    model.model._modules["again"] = model


def doubled(model: nn.Module) -> None:
    inside = model.model
    for _ in range(30):
        inside = nn.Sequential(inside, inside)
    model.model = inside


def endless_tensor(model: nn.Module) -> None:
    model.model[0].conv.weight.data = torch.ones(1).expand(10**12)


def many_layers(model: nn.Module) -> None:
    model.yaml = {**YAML, "backbone": [[-1, 1, "Conv", [8]]] * 2001}


def many_repeats(model: nn.Module) -> None:
    model.yaml = {**YAML, "depth_multiple": 1e9}


def wide_layers(model: nn.Module) -> None:
    model.yaml = {**YAML, "width_multiple": 1e4}


def absurd_classes(model: nn.Module) -> None:
    model.nc = 10**9


def odd_strides(model: nn.Module) -> None:
    model.model[-1].stride = torch.ones(7)


def no_yaml(model: nn.Module) -> None:
    model.yaml = None


HARM = [
    nested, in_itself, doubled, endless_tensor, many_layers, many_repeats, wide_layers, absurd_classes, odd_strides,
    no_yaml,
]  # fmt: skip


@pytest.mark.parametrize("harm", HARM, ids=lambda f: f.__name__)
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_an_absurd_model_is_reported_in_one_line(
    tmp_path: Path, theirs: ModuleType, ours: DetectionModel, harm: Callable[[nn.Module], None], legacy: bool
) -> None:
    model = their_model(ours, theirs)
    harm(model)
    path = tmp_path / "odd.pt"
    save({"model": model}, path, legacy=legacy)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_reported_in_one_line(tmp_path: Path, theirs: ModuleType, ours: DetectionModel) -> None:
    path = tmp_path / "a.pt"
    save({"model": their_model(ours, theirs)}, path, legacy=True)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            load_weights(path)
