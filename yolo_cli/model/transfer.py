"""Taking weights from one state dict into a model that may differ from it, and saying what was taken."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Names taken, names left out with the reason, and names of the model that kept their own values."""

    taken: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    kept: tuple[str, ...]

    def summary(self) -> str:
        """One line for the screen."""
        text = f"{len(self.taken)} of {len(self.taken) + len(self.kept)} tensors taken"
        if self.left_out:
            shown = ", ".join(f"{name} ({why})" for name, why in self.left_out[:3])
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            text += f"; not taken: {shown}{more}"
        elif self.kept:
            more = f" and {len(self.kept) - 3} more" if len(self.kept) > 3 else ""
            text += f"; not in the file: {', '.join(self.kept[:3])}{more}"
        return text


@torch.no_grad()
def transfer(model: nn.Module, state: Mapping[str, Tensor], exclude: tuple[str, ...] = ()) -> TransferReport:
    """Copy every tensor whose name and shape the model shares; names that end in one of `exclude` are left out."""
    own = model.state_dict()
    taken, left_out = [], []
    for name, value in state.items():
        if name.endswith(exclude or ("\0",)):
            left_out.append((name, "set by the architecture"))
        elif name not in own:
            left_out.append((name, "no such name in the model"))
        elif own[name].shape != value.shape:
            left_out.append((name, f"shape {_shape(value)} in the file, {_shape(own[name])} in the model"))
        else:
            own[name].copy_(value)
            taken.append(name)
    missing = own.keys() - set(taken)
    return TransferReport(tuple(taken), tuple(left_out), tuple(name for name in own if name in missing))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
