"""Checkpoints of other YOLO projects, which are pickled modules, read as data.

Such a file contains the names of the classes of the project that wrote it. `torch.load(weights_only=True)` refuses
names that it does not regard as safe. Here the names of known blocks get inert stubs, so the module tree is read as
plain attributes. No code of the file, nor of the project that wrote it, runs.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.errors import UserError, first_line
from yolo_cli.io import assets
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.model.architecture import MAX_CLASSES, Anchors, Architecture, from_mapping
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.plan import integer
from yolo_cli.weights.pytorch import yolox
from yolo_cli.weights.pytorch.allowlist import ModuleStub, not_allowed, stub_for
from yolo_cli.weights.pytorch.archive import check_archive, is_archive
from yolo_cli.weights.pytorch.legacy import read_legacy
from yolo_cli.weights.pytorch.module_tree import (
    children,
    conv_activation,
    differing_activations,
    rescale_norms,
    tensors,
)


@dataclass(frozen=True, slots=True)
class PyTorchCheckpoint:
    """The contents of a file: enough to build the model."""

    architecture: Architecture
    state: dict[str, Tensor]  # fp32, in the published naming
    names: tuple[str, ...]
    was_fused: bool  # its batch norms were folded; `state` has norms that only add the bias


def read_checkpoint(path: Path) -> PyTorchCheckpoint:
    """Architecture, weights and class names of a pickled YOLO checkpoint; the EMA weights where it has them.

    Raises UserError for any other file, and for a file that uses names outside the allowlist.
    """
    content = _load(path)
    if (published := yolox.published_state(content)) is not None:
        return _read_yolox(path, published)
    model = _model(content)
    yaml = getattr(model, "yaml", None)
    if model is None or not isinstance(yaml, dict):
        raise UserError("holds no YOLO model", where=path, fix="give a checkpoint that a YOLO trainer saved")
    try:
        state = _as_float(dict(tensors(model, path.stat().st_size)))
        rescale_norms(model, state)
        names = _names(getattr(model, "names", None))
        file_name = Path(str(yaml.get("yaml_file") or path.stem)).stem
        activation = {"activation": found} if (found := conv_activation(model)) else {}
        architecture = from_mapping({**yaml, **activation}, name=file_name, where=path)
        nc = getattr(model, "nc", architecture.nc)
        architecture = architecture.with_classes(integer(nc, "nc", 1, MAX_CLASSES))
        _check_activations(model, architecture)
        anchors = _anchors_in_pixels(model)
    except UserError as error:
        raise UserError(error.what, where=error.where or path, fix=error.fix) from None
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"not a valid YOLO model ({first_line(error)})", where=path) from None
    if anchors is not None:
        architecture = architecture.with_anchors(anchors)
    unfused = _unfused(state)
    return PyTorchCheckpoint(architecture, unfused, names, was_fused=len(unfused) > len(state))


def _read_yolox(path: Path, published: Mapping[str, Tensor]) -> PyTorchCheckpoint:
    """A published YOLOX state dict, which has no class names: with as many classes as COCO it gets COCO's."""
    try:
        architecture, state = yolox.read_state(published)
        was_fused = yolox.has_folded_norms(state)
    except UserError as error:
        raise UserError(error.what, where=path, fix=error.fix) from None
    except (KeyError, RuntimeError) as error:
        raise UserError(f"not a valid YOLOX state dict ({first_line(error)})", where=path) from None
    coco = _names(read_mapping(assets.find("data", "coco", option="--data")).get("names"))
    names = coco if len(coco) == architecture.nc else ()
    return PyTorchCheckpoint(architecture, state, names, was_fused=was_fused)


def _load(path: Path) -> Any:
    try:
        if not is_archive(path):
            return read_legacy(path)
        check_archive(path)
        with torch.serialization.safe_globals(_stubs(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated types, which are read nevertheless
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from None
    except Exception as error:  # a damaged or hostile file may raise anything
        fix = "give a .pt or .pth file; if it is one, it was cut off: copy or download it again"
        raise UserError(f"not a readable checkpoint ({first_line(error)})", where=path, fix=fix) from None


def _stubs(path: Path) -> list[Any]:
    """Stubs with their names, for every name in a zip file that torch does not regard as safe data."""
    stubs = []
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(path):
        stub = stub_for(name)
        if stub is None:
            raise not_allowed(path, name)
        stubs.append((stub, name))
    return stubs


def _model(content: Any) -> ModuleStub | None:
    """The module tree in the content of a file, without wrappers: the EMA model where there is one, else the model."""
    candidates = [content.get("ema"), content.get("model")] if isinstance(content, dict) else [content]
    for candidate in candidates:
        found = candidate[0] if isinstance(candidate, tuple | list) and candidate else candidate
        for wrapped in ("ema", "module"):  # an object that holds the average; DataParallel
            inner = getattr(found, wrapped, None) or children(found).get(wrapped)
            found = inner if isinstance(inner, ModuleStub) else found
        if isinstance(found, ModuleStub):
            return found
    return None


def _as_float(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _check_activations(model: ModuleStub, architecture: Architecture) -> None:
    """Raises UserError where an activation in the file differs from that of the layer that would be built for it."""
    with torch.device("meta"):  # allocates nothing
        built = DetectionModel(architecture)
    for name, theirs, ours in differing_activations(model, built):
        raise UserError(f"{name} is {theirs} in the file, but this layer is always built with {ours}")


def _anchors_in_pixels(model: ModuleStub) -> Anchors | None:
    """The last layer's anchors times its strides; None where it has none."""
    layers = list(children(children(model).get("model")).values())
    head = layers[-1] if layers else None
    buffers = getattr(head, "_buffers", None)
    anchors = buffers.get("anchors") if isinstance(buffers, Mapping) else None
    strides = getattr(head, "stride", None)
    strides = strides if isinstance(strides, Tensor) else getattr(model, "stride", None)
    if not isinstance(anchors, Tensor) or not isinstance(strides, Tensor):
        return None
    if anchors.ndim != 3 or anchors.shape[2] != 2 or strides.shape != anchors.shape[:1] or anchors.numel() > 10_000:
        raise ValueError("anchors and strides do not match")
    pixels = (anchors.double() * strides.double().view(-1, 1, 1)).flatten(1)
    if not bool((pixels > 0).all() and torch.isfinite(pixels).all()):
        raise ValueError("anchors must be positive")
    return tuple(tuple(_rounded(value) for value in scale) for scale in pixels.tolist())


def _rounded(value: float) -> float:
    """A pixel value with at most three decimals; an int where it is whole, as in architecture files."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _unfused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with a batch norm `x.bn` for every convolution `x.conv` whose own was folded into its bias.

    A norm of mean 0 and variance 1 − ε only adds the bias, and can be trained further.
    """
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        prefix = name.removesuffix("conv.bias")
        if not name.endswith(".conv.bias") or f"{prefix}bn.weight" in state:
            result[name] = value
            continue
        result[f"{prefix}bn.weight"] = torch.ones_like(value)
        result[f"{prefix}bn.bias"] = value
        result[f"{prefix}bn.running_mean"] = torch.zeros_like(value)
        result[f"{prefix}bn.running_var"] = torch.full_like(value, 1 - BN_EPS)
        result[f"{prefix}bn.num_batches_tracked"] = torch.tensor(0)
    return result


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping) and all(isinstance(key, int) for key in names):
        return tuple(str(names[key]) for key in sorted(names))
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()
