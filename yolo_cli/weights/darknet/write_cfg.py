"""The text of a .cfg for an architecture of Darknet's layers."""

from collections.abc import Sequence
from typing import Any

from yolo_cli.model.architecture import Architecture, Layer
from yolo_cli.weights.darknet.weights import not_in_darknet

_CONVOLUTION = ("size", "stride", "padding", "groups", "batch_normalize", "activation")


def cfg_text(architecture: Architecture, height: int, width: int) -> str:
    """A .cfg that reads back as the same network, with the input size `height` × `width` (pixels) in [net].

    It has no settings for training with Darknet. Raises UserError for a layer that Darknet does not have.
    """
    head = architecture.layers[-1]
    if head.block != "DarknetDetect" or isinstance(architecture.anchors, int):
        raise not_in_darknet(architecture, len(architecture.layers) - 1)
    body = architecture.layers[:-1]
    yolos = head.sources(len(body))
    parts = [_section("net", {"width": width, "height": height, "channels": 3})]
    for index, layer in enumerate(body):
        if index in yolos:
            parts.append(_yolo(architecture, yolos.index(index)))
            continue
        kind, values = _section_values(architecture, index, layer)
        if layer.block == "DarknetOutput" and head.args[3][yolos.index(index + 1)]:
            values["activation"] = "logistic"  # with new_coords, Darknet applies the sigmoid in this section
        parts.append(_section(kind, values))
    return "\n".join(parts)


def _section_values(architecture: Architecture, index: int, layer: Layer) -> tuple[str, dict[str, Any]]:
    """The kind and the values of a layer's section."""
    args = layer.args
    sections: dict[str, tuple[str, tuple[str, ...], tuple[Any, ...]]] = {
        "DarknetConv": ("convolutional", ("filters", *_CONVOLUTION), args),
        "DarknetMaxPool": ("maxpool", ("size", "stride", "padding"), args),
        "DarknetDropout": ("dropout", ("probability",), args),
        "DarknetRoute": ("route", ("groups", "group_id", "layers"), (*args, layer.sources(index))),
        "DarknetShortcut": ("shortcut", ("activation", "from"), (*args, layer.sources(index)[1:])),
    }
    if layer.block == "DarknetOutput":
        filters = args[1] * (5 + architecture.nc)
        sections["DarknetOutput"] = ("convolutional", ("filters", *_CONVOLUTION), (filters, *args[2:]))
    if layer.block == "Upsample" and args[2] == "nearest":
        sections["Upsample"] = ("upsample", ("stride",), (args[1],))
    if layer.block not in sections:
        raise not_in_darknet(architecture, index)
    kind, keys, values = sections[layer.block]
    return kind, dict(zip(keys, values, strict=True))


def _yolo(architecture: Architecture, scale: int) -> str:
    """A [yolo] section. It lists all anchors of the network, and its mask selects those of this scale."""
    head = architecture.layers[-1]
    assert isinstance(architecture.anchors, tuple)
    first = sum(len(anchors) // 2 for anchors in architecture.anchors[:scale])
    flat = [value for anchors in architecture.anchors for value in anchors]
    values = {
        "mask": range(first, first + len(architecture.anchors[scale]) // 2),
        "anchors": flat,
        "classes": architecture.nc,
        "num": len(flat) // 2,
        "scale_x_y": head.args[2][scale],
        "new_coords": head.args[3][scale],
    }
    return _section("yolo", values)


def _section(kind: str, values: dict[str, Any]) -> str:
    return f"[{kind}]\n" + "".join(f"{key}={_text(value)}\n" for key, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_text(v) for v in value)
    return str(value)
