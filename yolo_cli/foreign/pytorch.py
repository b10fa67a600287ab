"""YOLO checkpoints that were saved as pickled modules, read as data.

Such a file names the classes of the code that wrote it. `torch.load(weights_only=True)` refuses every name it does
not know; here the known block names are given to it as inert stand-ins, so that the module tree arrives as plain
attributes and no code of the file's, nor of the project that wrote it, runs.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import Architecture, from_mapping

# What YOLO repositories keep in these modules: blocks, heads and models. A class is accepted by module and by the
# shape of its name; it becomes an inert Stub whatever it is, so the list need not know each block.
_FOREIGN_CLASS = re.compile(
    r"(models\.(yolo|common|experimental)|torch\.nn\.modules\.(activation|batchnorm|container|conv|linear|padding"
    r"|pooling|upsampling))\.[A-Z]\w*"
)
MAX_INFLATION = 4  # archives of tensors are stored, not squeezed; a zip bomb is


class Stub:
    """A module of the file as data: what it held is in its attributes; it can do nothing."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError("a module's state is a mapping")
        self.__dict__.update({str(key): value for key, value in state.items()})


@dataclass(frozen=True, slots=True)
class ForeignCheckpoint:
    """What a foreign file says of its model."""

    architecture: Architecture
    state: dict[str, Tensor]  # fp32, in the published naming
    names: tuple[str, ...]


def read_checkpoint(path: Path) -> ForeignCheckpoint:
    """Architecture, weights and class names of a pickled YOLO checkpoint.

    Raises UserError for anything that is not one, and by name for anything in it that is not a known block.
    """
    content = _load(path)
    model = content
    if isinstance(content, dict):
        model = content.get("ema") or content.get("model")
    yaml = getattr(model, "yaml", None)
    if not isinstance(model, Stub) or not isinstance(yaml, dict):
        raise UserError("holds no YOLO model", where=path, fix="give a checkpoint that a YOLO trainer saved")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in _tensors(model, "")}
    names = _names(getattr(model, "names", None))
    architecture = from_mapping(yaml, name=Path(str(yaml.get("yaml_file") or path.stem)).stem, where=path)
    architecture = architecture.with_classes(int(getattr(model, "nc", architecture.nc)))
    return ForeignCheckpoint(architecture, state, names)


def _load(path: Path) -> Any:
    allowed = _checked_globals(path)
    stubs: list[Any] = [(type(name.rpartition(".")[2], (Stub,), {}), name) for name in allowed]
    stubs += [(set, "__builtin__.set"), (set, "builtins.set")]
    try:
        with torch.serialization.safe_globals(stubs):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from None
    except Exception as error:  # whatever a damaged or hostile file provokes in the reader is the file's fault
        refused = re.search(r"Unsupported (?:global: GLOBAL|class|operand) ([\w.]+)", str(error))
        if refused:
            raise refusal(path, refused[1]) from None
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"not a readable checkpoint ({detail[:120]})", where=path) from None


def refusal(path: Path, name: str) -> UserError:
    """The error for a file that names something beyond data and known blocks."""
    return UserError(
        f"refused: the file wants to use {name}, which is neither data nor a known block; nothing of it was run",
        where=path,
        fix="do not trust this file",
    )


def _checked_globals(path: Path) -> list[str]:
    """Names that the file uses beyond those which torch knows to be data; each must be a known block's."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
        if total > MAX_INFLATION * path.stat().st_size:
            raise UserError(f"refused: unpacks to {total:,} bytes, far beyond its own size", where=path)
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except FileNotFoundError:
        raise UserError("no such file", where=path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from None
    except UserError:
        raise
    except Exception as error:  # as above: the reader's trouble is the file's
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"not a readable checkpoint ({detail[:120]})", where=path) from None
    for name in named:
        if not _FOREIGN_CLASS.fullmatch(name) and name not in ("__builtin__.set", "builtins.set"):
            raise refusal(path, name)
    return [name for name in named if _FOREIGN_CLASS.fullmatch(name)]


def _tensors(stub: Stub, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module tree under their state-dict names."""
    attributes = vars(stub)
    transient = attributes.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        held = attributes.get(kind)
        for name, value in held.items() if isinstance(held, Mapping) else ():
            if isinstance(value, Tensor) and name not in transient:
                yield prefix + name, value.detach()
    children = attributes.get("_modules")
    for name, child in children.items() if isinstance(children, Mapping) else ():
        if isinstance(child, Stub):
            yield from _tensors(child, f"{prefix}{name}.")


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        return tuple(str(names[key]) for key in sorted(names))
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()
