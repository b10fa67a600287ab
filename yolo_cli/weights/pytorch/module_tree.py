"""The module tree of a pickled model: its tensors, activations and batch norms."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from yolo_cli.model.blocks.activations import ACTIVATIONS
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.weights.pytorch.allowlist import ModuleStub

MAX_DEPTH = 32  # of nested modules; published models have about 8
MAX_MODULES = 100_000
# Activations of early releases that torch has had since under another name.
_RENAMED = {"Swish": "SiLU", "MemoryEfficientSwish": "SiLU", "MemoryEfficientMish": "Mish"}


def children(stub: Any) -> Mapping[Any, Any]:
    """The direct submodules."""
    held = getattr(stub, "_modules", None)
    return held if isinstance(held, Mapping) else {}


def modules(model: ModuleStub) -> Iterator[tuple[str, ModuleStub]]:
    """Every module of a tree, the root first, with the prefix of its names in a state dict.

    Raises ValueError for a tree that is too deep or has too many modules.
    """
    pending: list[tuple[ModuleStub, str, int]] = [(model, "", 0)]
    count = 0
    while pending:
        stub, prefix, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_MODULES:
            raise ValueError("modules nested too deeply, or too many")
        yield prefix, stub
        below = [(c, f"{prefix}{n}.", depth + 1) for n, c in children(stub).items() if isinstance(c, ModuleStub)]
        pending.extend(reversed(below))


def tensors(model: ModuleStub, file_size: int) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a tree with their state-dict names.

    Raises ValueError for a tree that is too deep or too large, and for more numbers than the file has bytes.
    """
    numbers = 0
    for prefix, stub in modules(model):
        transient = getattr(stub, "_non_persistent_buffers_set", None)
        skipped = transient if isinstance(transient, set) else set()
        for kind in ("_parameters", "_buffers"):
            held = getattr(stub, kind, None)
            for name, value in held.items() if isinstance(held, Mapping) else ():
                if isinstance(value, Tensor) and name not in skipped:
                    numbers += value.numel()
                    if numbers > file_size:
                        raise ValueError("more numbers than the file has bytes")
                    yield f"{prefix}{name}", value.detach()


def conv_activation(model: ModuleStub) -> str:
    """The activation of most convolution blocks, as written in architecture files; "" where none has one.

    The YAML of published files does not contain it, but releases of YOLOv5 differ: LeakyReLU(0.1), Hardswish from v3.0
    on, SiLU from v4.0 on.
    """
    found = Counter(
        _activation(below["act"])
        for _, stub in modules(model)
        if isinstance((below := children(stub)).get("act"), ModuleStub) and "conv" in below
    )
    found.pop("Identity", None)
    return found.most_common(1)[0][0] if found else ""


def differing_activations(model: ModuleStub, built: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Modules whose activation differs from that of the model built for them: name, theirs, ours."""
    ours = {name: shown for name, m in built.named_modules() if (shown := _activation(m)).split("(")[0] in ACTIVATIONS}
    for prefix, stub in modules(model):
        name = prefix.removesuffix(".")
        if name in ours and _activation(stub) != ours[name]:
            yield name, _activation(stub), ours[name]


def rescale_norms(model: ModuleStub, state: dict[str, Tensor]) -> None:
    """Scale the weights of batch norms whose epsilon differs from ours, so that their outputs stay the same.

    γ / √(σ² + ε) is kept constant. The first release of YOLOv5 had ε = 1e-4, later ones have 1e-3.
    """
    for prefix, stub in modules(model):
        eps = getattr(stub, "eps", None)
        weight, variance = state.get(f"{prefix}weight"), state.get(f"{prefix}running_var")
        if isinstance(eps, float) and 0 < eps < 1 and eps != BN_EPS and weight is not None and variance is not None:
            state[f"{prefix}weight"] = weight * torch.sqrt((variance + BN_EPS) / (variance + eps))


def _activation(module: Any) -> str:
    """A module's class as written in an architecture file, with its slope."""
    name = type(module).__name__
    slope = getattr(module, "negative_slope", None)
    return f"{name}({slope})" if isinstance(slope, float) else _RENAMED.get(name, name)
