"""Activations by their names in architecture files: `SiLU`, `nn.LeakyReLU(0.1)`."""

import re

from torch import nn

from yolo_cli.errors import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Hardswish": nn.Hardswish,
    "Identity": nn.Identity,
    "LeakyReLU": nn.LeakyReLU,
    "Mish": nn.Mish,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}
_IN_PLACE = ("Hardswish", "LeakyReLU", "Mish", "ReLU", "ReLU6", "SiLU")
_PATTERN = re.compile(r"(?:nn\.)?(\w+)(?:\(\s*(?:negative_slope\s*=\s*)?([-+\d.eE]*)\s*(?:,?\s*inplace\s*=\s*\w+)?\))?")


class Named(str):
    """An activation's name in a layer's arguments. Its repr is that of the torch module, as in published tables."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = repr(activation(str(self)))
        return shown.replace(", inplace=True", "").replace("inplace=True", "")


def activation(text: str | bool | None) -> nn.Module:
    """Make an activation by its name. False, None and "" are the identity, True is SiLU.

    Raises UserError for a name that is not in ACTIVATIONS. Only LeakyReLU takes a number, the slope.
    """
    if not isinstance(text, str):
        return nn.SiLU(inplace=True) if text else nn.Identity()
    match = _PATTERN.fullmatch(text.strip()) if text.strip() else None
    if text.strip() and (match is None or match[1] not in ACTIVATIONS):
        raise UserError(f"unknown activation {text!r}", fix=f"use one of {', '.join(sorted(ACTIVATIONS))}")
    if match is None:
        return nn.Identity()
    options = {"inplace": True} if match[1] in _IN_PLACE else {}
    if match[2]:
        if match[1] != "LeakyReLU":
            raise UserError(f"activation {match[1]} takes no number: {text!r}")
        try:
            return nn.LeakyReLU(float(match[2]), inplace=True)
        except ValueError:
            raise UserError(f"activation {text!r} has an invalid number") from None
    return ACTIVATIONS[match[1]](**options)
