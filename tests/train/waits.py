"""Counts operations that make the host wait for a GPU, also where there is none."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# The result, or its shape, depends on values; or values are copied between host and device.
_OPERATIONS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "allclose",
    "bincount",
    "lift_fresh",  # torch.tensor and new_tensor: a copy of Python numbers from memory that is not pinned
}
_WITH_DATA_DEPENDENT_SHAPES = ("unique", "_unique", "repeat_interleave")
# On the CPU these reach the memory without an operation that could be seen below.
_METHODS = {
    getattr(Tensor, name): name
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__len__")
    if name != "__len__"  # a shape is known to the host
}


class _Operations(TorchDispatchMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _OPERATIONS or name.startswith(_WITH_DATA_DEPENDENT_SHAPES):
            self.note(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [i for i in args[1] if i is not None]
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                self.note(f"{name} with a mask")
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _METHODS and _METHODS[func] in ("tolist", "cpu", "numpy"):
            self.note(_METHODS[func])
        return func(*args, **(kwargs or {}))


class Waits:
    """Counts by stage: `found[stage, operation]`."""

    def __init__(self) -> None:
        self.stage = "loop"
        self.found: Counter[tuple[str, str]] = Counter()

    def _note(self, operation: str) -> None:
        self.found[self.stage, operation] += 1

    @contextmanager
    def counting(self) -> Iterator["Waits"]:
        """Count in this block."""
        with _Operations(self._note), _Methods(self._note):
            yield self

    def wrap(self, function: Callable[..., Any], stage: str, after: str) -> Callable[..., Any]:
        """`function`, counted as `stage`; what follows it is counted as `after`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.stage = stage
            try:
                return function(*args, **kwargs)
            finally:
                self.stage = after

        return wrapped

    def totals(self) -> Counter[str]:
        """The number per stage."""
        totals: Counter[str] = Counter()
        for (stage, _), number in self.found.items():
            totals[stage] += number
        return totals
