"""What the module tree of a pickled model holds: tensors, activations, batch norms."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from yolo_cli.model.blocks.activations import ACTIVATIONS
from yolo_cli.model.blocks.conv import BN_EPS
from yolo_cli.weights.pytorch.stand_ins import Stub

MAX_DEPTH = 32  # modules within modules; published ones have about 8
MAX_MODULES = 100_000
# Names that early releases gave to activations of their own, which torch has had since.
_OWN_NAMES = {"Swish": "SiLU", "MemoryEfficientSwish": "SiLU", "MemoryEfficientMish": "Mish"}


def children(stub: Any) -> Mapping[Any, Any]:
    """The modules directly within one."""
    held = getattr(stub, "_modules", None)
    return held if isinstance(held, Mapping) else {}


def modules(model: Stub) -> Iterator[tuple[str, Stub]]:
    """Every module of a tree, itself first, with the prefix of its names in a state dict.

    Raises ValueError for a tree that is absurd: too deep, or of too many modules.
    """
    pending: list[tuple[Stub, str, int]] = [(model, "", 0)]
    count = 0
    while pending:
        stub, prefix, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_MODULES:
            raise ValueError("modules nested or repeated absurdly")
        yield prefix, stub
        below = [(c, f"{prefix}{n}.", depth + 1) for n, c in children(stub).items() if isinstance(c, Stub)]
        pending.extend(reversed(below))


def tensors(model: Stub, file_size: int) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a tree under their state-dict names.

    Raises ValueError for an absurd tree, and for more numbers than the file has bytes.
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


def conv_activation(model: Stub) -> str:
    """The activation of most convolution blocks, as architecture files write it; "" where none has one.

    Releases changed what their `Conv` does without a word in their YAML: LeakyReLU(0.1), Hardswish from v3.0 on, SiLU
    from v4.0 on.
    """
    found = Counter(
        _activation(below["act"])
        for _, stub in modules(model)
        if isinstance((below := children(stub)).get("act"), Stub) and "conv" in below
    )
    found.pop("Identity", None)
    return found.most_common(1)[0][0] if found else ""


def odd_activations(model: Stub, built: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Where a tree activates otherwise than the model built for it: the module's name, theirs, ours."""
    ours = {name: shown for name, m in built.named_modules() if (shown := _activation(m)).split("(")[0] in ACTIVATIONS}
    for prefix, stub in modules(model):
        name = prefix.removesuffix(".")
        if name in ours and _activation(stub) != ours[name]:
            yield name, _activation(stub), ours[name]


def rescale_norms(model: Stub, state: dict[str, Tensor]) -> None:
    """Scale the weights of batch norms that add another epsilon than ours, so that they give the same outputs.

    γ / √(σ² + ε) stays what it was; the first release had ε = 1e-4, later ones 1e-3.
    """
    for prefix, stub in modules(model):
        eps = getattr(stub, "eps", None)
        weight, variance = state.get(f"{prefix}weight"), state.get(f"{prefix}running_var")
        if isinstance(eps, float) and 0 < eps < 1 and eps != BN_EPS and weight is not None and variance is not None:
            state[f"{prefix}weight"] = weight * torch.sqrt((variance + BN_EPS) / (variance + eps))


def _activation(module: Any) -> str:
    """A module's class as an activation in an architecture file, with its slope."""
    name = type(module).__name__
    slope = getattr(module, "negative_slope", None)
    return f"{name}({slope})" if isinstance(slope, float) else _OWN_NAMES.get(name, name)
