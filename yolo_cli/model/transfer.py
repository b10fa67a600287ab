"""Loading the weights of a state dict that match a model, with a report of the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Names of loaded tensors, skipped ones with the reason, and tensors of the model that were not in the file."""

    loaded: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    def summary(self) -> str:
        """One line for the screen."""
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors loaded"
        if self.skipped:
            shown = ", ".join(f"{name} ({reason})" for name, reason in self.skipped[:3])
            more = f" and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
            text += f"; not loaded: {shown}{more}"
        elif self.missing:
            more = f" and {len(self.missing) - 3} more" if len(self.missing) > 3 else ""
            text += f"; not in the file: {', '.join(self.missing[:3])}{more}"
        return text


@torch.no_grad()
def transfer(model: nn.Module, state: Mapping[str, Tensor], exclude: tuple[str, ...] = ()) -> TransferReport:
    """Copy the tensors whose names and shapes match those of the model, except names that end in one of `exclude`."""
    own = model.state_dict()
    loaded, skipped = [], []
    for name, value in state.items():
        if name.endswith(exclude):
            skipped.append((name, "set by the architecture"))
        elif name not in own:
            skipped.append((name, "no such name in the model"))
        elif own[name].shape != value.shape:
            skipped.append((name, f"shape {_shape(value)} in the file, {_shape(own[name])} in the model"))
        else:
            own[name].copy_(value)
            loaded.append(name)
    missing = own.keys() - set(loaded)
    return TransferReport(tuple(loaded), tuple(skipped), tuple(name for name in own if name in missing))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
