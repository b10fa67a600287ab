"""An emulation of the MPS device on the CPU: its tensors refuse float64 and refuse to be mixed with CPU tensors."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CPU, MPS = torch.device("cpu"), torch.device("mps")
M = TypeVar("M", bound=nn.Module)
ACROSS_DEVICES = {"copy_", "to", "__getitem__", "__setitem__", "__set__"}  # accept tensors of two devices


class MPSTensor(Tensor):
    """A tensor whose device is MPS; its values are in the CPU tensor `values`."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "MPSTensor":
        if values.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        options = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, values.shape, device=MPS, **options)
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class EmulatedMPS(TorchFunctionMode):
    """Within this context, torch's functions run on MPSTensors, and create them for the device "mps"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def on_mps(tensor: Tensor) -> Tensor:
    return MPSTensor(tensor)


def module_on_mps(module: M) -> M:
    """Move parameters and buffers in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(on_mps(parameter.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_mps(buffer)
    return module


def _run(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function on the values; its results are on the device that is named, or on that of its arguments."""
    wrappers: dict[int, MPSTensor] = {}
    on_cpu: list[Tensor] = []
    devices: list[torch.device] = []

    def unwrap(value: Any) -> Any:
        if isinstance(value, torch.device):
            devices.append(value)
            return CPU
        if isinstance(value, MPSTensor):
            wrappers[id(value.values)] = value
            return value.values
        if value.dim():
            on_cpu.append(value)
        return value

    values, options = tree_map_only((Tensor, torch.device), unwrap, (args, kwargs))
    name = func.__name__.split(".")[0]
    if wrappers and on_cpu and name not in ACROSS_DEVICES:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found mps:0 and cpu")
    result = func(*values, **options)
    if name == "__get__" and not isinstance(result, Tensor):
        return func(*args, **kwargs)  # an attribute, such as the device
    if name in ("to", "_to_copy") and not devices:  # to a dtype, or to the device of another tensor
        devices.append(args[1].device if isinstance(args[1], Tensor) else args[0].device)
    to_mps = bool(wrappers) if not devices else devices[-1].type == "mps"
    if name == "cpu":
        to_mps = False

    def wrap(tensor: Tensor) -> Tensor:
        if to_mps and id(tensor) in wrappers:  # a function that works in place returns its argument
            return wrappers[id(tensor)]
        return MPSTensor(tensor) if to_mps else tensor

    return tree_map_only(Tensor, wrap, result)
