"""YOLO checkpoints that were saved as pickled modules, read as data.

Such a file names the classes of the code that wrote it. `torch.load(weights_only=True)` refuses every name it does
not know; here the known block names are given to it as inert stand-ins, so that the module tree arrives as plain
attributes and no code of the file's, nor of the project that wrote it, runs.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import MAX_CLASSES, Anchors, Architecture, from_mapping
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.plan import integer
from yolo_cli.weights.pytorch.legacy import read_legacy
from yolo_cli.weights.pytorch.rehearsal import rehearse
from yolo_cli.weights.pytorch.stand_ins import Stub, refusal, stand_in
from yolo_cli.weights.pytorch.tree import children, conv_activation, odd_activations, rescale_norms, tensors

MAX_INFLATION = 4  # archives of tensors are stored, not squeezed; a zip bomb is


@dataclass(frozen=True, slots=True)
class ForeignCheckpoint:
    """What a foreign file says of its model."""

    architecture: Architecture
    state: dict[str, Tensor]  # fp32, in the published naming
    names: tuple[str, ...]
    was_fused: bool  # its batch norms were folded; they are there again, doing nothing


def read_checkpoint(path: Path) -> ForeignCheckpoint:
    """Architecture, weights and class names of a pickled YOLO checkpoint; the moving average where there is one.

    Raises UserError for anything that is not one, and by name for anything in it that is not a known block.
    """
    model = _model(_load(path))
    yaml = getattr(model, "yaml", None)
    if model is None or not isinstance(yaml, dict):
        raise UserError("holds no YOLO model", where=path, fix="give a checkpoint that a YOLO trainer saved")
    try:
        state = _as_float(dict(tensors(model, path.stat().st_size)))
        rescale_norms(model, state)
        names = _names(getattr(model, "names", None))
        file_name = Path(str(yaml.get("yaml_file") or path.stem)).stem
        said = {"activation": found} if (found := conv_activation(model)) else {}
        architecture = from_mapping({**yaml, **said}, name=file_name, where=path)
        nc = getattr(model, "nc", architecture.nc)
        architecture = architecture.with_classes(integer(nc, "nc", 1, MAX_CLASSES))
        _check_activations(model, architecture)
        anchors = _anchors_in_pixels(model)
    except UserError as error:
        raise UserError(error.what, where=error.where or path, fix=error.fix) from None
    except (ValueError, TypeError, RuntimeError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"not a sound YOLO model ({detail[:120]})", where=path) from None
    if anchors is not None:
        architecture = architecture.with_anchors(anchors)
    unfused = _unfused(state)
    return ForeignCheckpoint(architecture, unfused, names, was_fused=len(unfused) > len(state))


def _load(path: Path) -> Any:
    try:
        if not is_archive(path):
            return read_legacy(path)
        check_archive(path)
        allowed = _checked_globals(path)
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated types in old files; they are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("no such file", where=path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from None
    except Exception as error:  # whatever a damaged or hostile file provokes in the reader is the file's fault
        refused = re.search(r"Unsupported (?:global: GLOBAL|class|operand) ([\w.]+)", str(error))
        blocked = re.search(r"unsupported GLOBAL ([\w.]+)", str(error))
        if found := refused or blocked:
            raise refusal(path, found[1]) from None
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"not a readable checkpoint ({detail[:120]})", where=path) from None


def is_archive(path: Path) -> bool:
    """Whether a file ends as a zip does, sound or not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # raised for an end that Python does not understand
        return True


def check_archive(path: Path) -> None:
    """Raises UserError for a zip that cannot be listed, unpacks to far more than its size, or means harm."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"not a readable checkpoint ({error})", where=path) from None
    if total > MAX_INFLATION * path.stat().st_size:
        raise UserError(f"refused: unpacks to {total:,} bytes, far beyond its own size", where=path)
    try:
        rehearse(path)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes is the file's fault
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"not a readable checkpoint ({detail[:120]})", where=path) from None


def _checked_globals(path: Path) -> list[Any]:
    """Stand-ins for the names that a zip file uses beyond those which torch knows to be data."""
    given = []
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(path):
        found = stand_in(name)
        if found is None:
            raise refusal(path, name)
        given.append((found, name))
    return given


def _model(content: Any) -> Stub | None:
    """The module tree in what a file holds: the moving average before the model, out of any wrapping."""
    candidates = [content.get("ema"), content.get("model")] if isinstance(content, dict) else [content]
    for candidate in candidates:
        found = candidate[0] if isinstance(candidate, tuple | list) and candidate else candidate
        for wrapped in ("ema", "module"):  # an averaging object; a model that was trained on several devices
            inner = getattr(found, wrapped, None) or children(found).get(wrapped)
            found = inner if isinstance(inner, Stub) else found
        if isinstance(found, Stub):
            return found
    return None


def _as_float(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _check_activations(model: Stub, architecture: Architecture) -> None:
    """Raises UserError where the file's model activates otherwise than the one that would be built for it."""
    with torch.device("meta"):  # nothing is allocated
        built = DetectionModel(architecture)
    for name, theirs, ours in odd_activations(model, built):
        raise UserError(f"{name} is {theirs} in the file, where this layer is built with {ours} only")


def _anchors_in_pixels(model: Stub) -> Anchors | None:
    """Anchors of the last layer: its own times its strides; None where it has none."""
    layers = list(children(children(model).get("model")).values())
    head = layers[-1] if layers else None
    buffers = getattr(head, "_buffers", None)
    anchors = buffers.get("anchors") if isinstance(buffers, Mapping) else None
    strides = getattr(head, "stride", None)
    strides = strides if isinstance(strides, Tensor) else getattr(model, "stride", None)
    if not isinstance(anchors, Tensor) or not isinstance(strides, Tensor):
        return None
    if anchors.ndim != 3 or anchors.shape[2] != 2 or strides.shape != anchors.shape[:1] or anchors.numel() > 10_000:
        raise ValueError("anchors and strides do not go together")
    pixels = (anchors.double() * strides.double().view(-1, 1, 1)).flatten(1)
    if not bool((pixels > 0).all() and torch.isfinite(pixels).all()):
        raise ValueError("anchors that are not positive")
    return tuple(tuple(_shortest(value) for value in scale) for scale in pixels.tolist())


def _shortest(value: float) -> float:
    """A pixel value to three digits behind the point, whole where it is whole, as files write it."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _unfused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state with batch norms where a convolution `x.conv` lacks the `x.bn` that was folded into its bias.

    A norm of mean 0 and variance 1 − ε adds the bias and does nothing else, and can be trained on.
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
