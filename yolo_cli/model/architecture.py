"""Architecture files: from YAML to a checked description of each layer. Nothing in the file is evaluated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.blocks.activations import activation as make_activation
from yolo_cli.model.heads import AnchorHead, Head
from yolo_cli.model.plan import MAX_CHANNELS, MAX_CLASSES, Plan, PlannedModule, Scaling, integer

MAX_LAYERS = 2000
MAX_BLOCKS = 5000  # including repeats; the largest published network has about 300
STRIDES = (Fraction(1, 16), Fraction(2**10))  # bounds of a layer's stride
# `--cfg s` is short for yolov5s
_SIZES = tuple(f"{size}{suffix}" for suffix in ("", "6", "-tal") for size in ("n", "s", "m", "l", "x"))
# Initial anchors in cells for a file that has only their number: COCO's three smallest, at stride 8.
_UNFITTED = (1.25, 1.625, 2.0, 3.75, 4.125, 2.875)

DEFAULT_LOSS = "anchor"  # of a file without one

Anchors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of an architecture file."""

    source: int | tuple[int, ...]  # as written: -1 is the previous layer; a tuple for blocks with several inputs
    repeats: int
    block: str
    args: tuple[Any, ...]

    def sources(self, index: int) -> tuple[int, ...]:
        """Absolute indices of the source layers of layer `index`; −1 is the image."""
        given = self.source if isinstance(self.source, tuple) else (self.source,)
        return tuple(index + s if s < 0 else s for s in given)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The content of an architecture file."""

    name: str
    nc: int
    # (w, h, w, h, …) in pixels per scale; or their number per scale, to be fitted to a dataset; () for heads without
    anchors: Anchors | int
    layers: tuple[Layer, ...]
    backbone: int  # number of layers of the backbone
    depth: float = 1.0
    width: float = 1.0
    activation: str = "SiLU"
    anchor_grid: bool = False  # whether state dicts also have the anchors in pixels, as in older releases
    loss: str = DEFAULT_LOSS  # the loss to train with unless --loss is given

    @property
    def scaling(self) -> Scaling:
        """The compound scaling."""
        return Scaling(self.depth, self.width)

    def with_classes(self, nc: int) -> "Architecture":
        """A copy with another number of classes."""
        return replace(self, nc=integer(nc, "nc", 1, MAX_CLASSES))

    def with_anchors(self, anchors: Anchors) -> "Architecture":
        """A copy with other anchors, in pixels."""
        return replace(self, anchors=tuple(tuple(float(v) for v in scale) for scale in anchors))

    def to_mapping(self) -> dict[str, Any]:
        """The content of a file for this architecture; the inverse of `from_mapping`."""
        rows = [[_listed(la.source), la.repeats, la.block, _listed(la.args)] for la in self.layers]
        return {
            "name": self.name,
            "nc": self.nc,
            "depth_multiple": self.depth,
            "width_multiple": self.width,
            "activation": self.activation,
            **({"anchor_grid": True} if self.anchor_grid else {}),
            **({"anchors": _listed(self.anchors)} if self.anchors else {}),
            **({"loss": self.loss} if self.loss != DEFAULT_LOSS else {}),
            "backbone": rows[: self.backbone],
            "head": rows[self.backbone :],
        }


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer with its absolute sources, its plan and its stride."""

    layer: Layer
    sources: tuple[int, ...]
    plan: Plan
    stride: Fraction  # input pixels per output cell


def find_architecture(cfg: str) -> Architecture:
    """The architecture for a value of `--cfg`: a path, a shipped name, or a size such as `s` for yolov5s."""
    return read_architecture(assets.find("models", f"yolov5{cfg}" if cfg in _SIZES else cfg, option="--cfg"))


def read_architecture(path: Path) -> Architecture:
    """Read a YAML file. Raises UserError with the file and the layer."""
    return from_mapping(read_mapping(path), name=path.stem, where=path)


def from_mapping(mapping: Mapping[str, Any], *, name: str, where: object) -> Architecture:
    """Check a file's content. Raises UserError with `where` and the layer."""
    missing = [key for key in ("nc", "backbone", "head") if key not in mapping]
    if missing:
        raise UserError(f"lacks {', '.join(missing)}", where=where, fix="see the shipped models/*.yaml")
    try:
        nc = integer(mapping["nc"], "nc", 1, MAX_CLASSES)
        depth = _positive(mapping.get("depth_multiple", 1.0), "depth_multiple")
        width = _positive(mapping.get("width_multiple", 1.0), "width_multiple")
        anchors = _anchors(mapping["anchors"]) if "anchors" in mapping else ()
        activation = mapping.get("activation", "SiLU")
        if not isinstance(activation, str):
            raise UserError(f"activation must be a name, not {activation!r}")
        make_activation(activation)
        anchor_grid = mapping.get("anchor_grid", False)
        if not isinstance(anchor_grid, bool):
            raise UserError(f"anchor_grid must be true or false, not {anchor_grid!r}")
        loss = mapping.get("loss", DEFAULT_LOSS)
        if not isinstance(loss, str):
            raise UserError(f"loss must be a name, not {loss!r}")
        rows = [*_rows(mapping["backbone"], "backbone"), *_rows(mapping["head"], "head")]
        if len(rows) > MAX_LAYERS:
            raise UserError(f"{len(rows)} layers, expected at most {MAX_LAYERS}")
    except UserError as error:
        raise UserError(error.what, where=where, fix=error.fix) from None
    layers = tuple(_layer(row, index, where) for index, row in enumerate(rows))
    name = str(mapping.get("name", name))
    backbone = len(mapping["backbone"])
    architecture = Architecture(name, nc, anchors, layers, backbone, depth, width, activation, anchor_grid, loss)
    plan_layers(architecture, where=where)  # so that errors of the file are raised when it is read
    return architecture


def plan_layers(architecture: Architecture, *, where: object = "") -> list[PlannedLayer]:
    """Compute channels and stride of each layer. Raises UserError with the layer."""
    planned: list[PlannedLayer] = []
    blocks = 0
    anchors = architecture.anchors
    for index, layer in enumerate(architecture.layers):
        place = f"{where or architecture.name} layer {index} ({layer.block})"
        sources = layer.sources(index)
        block = BLOCKS[layer.block]
        is_head = issubclass(block, Head)
        if is_head != (index == len(architecture.layers) - 1):
            raise UserError("the last layer, and only the last, must be a detection head", where=place)
        if bad := [s for s in sources if not -1 <= s < index]:
            raise UserError(f"source {bad[0]} is not an earlier layer", where=place)
        channels = [planned[s].plan.channels if s >= 0 else 3 for s in sources]
        strides = [planned[s].stride if s >= 0 else Fraction(1) for s in sources]
        _check_strides(block, strides, place)
        known: dict[str, Any] = {"nc": architecture.nc}
        if issubclass(block, AnchorHead):
            if not anchors:
                raise UserError("lacks anchors", where=where or architecture.name, fix="see the shipped models/*.yaml")
            known["anchors"] = scale_anchors(anchors, strides[: block.main_sources(len(strides))])
        elif is_head and anchors:
            raise UserError("has no anchors, but the file gives some", where=place, fix="leave anchors out")
        args = [known.get(a, a) if isinstance(a, str) else a for a in layer.args]
        try:
            plan = block.plan(channels, args, layer.repeats, architecture.scaling)
            integer(plan.repeats, "repeats", 1, MAX_LAYERS)
            blocks += plan.repeats * plan.inner
            _check_bounds(blocks, plan.channels, strides[0] / plan.scale)
        except UserError as error:
            raise UserError(error.what, where=place, fix=error.fix) from None
        planned.append(PlannedLayer(layer, sources, plan, strides[0] / plan.scale))
    return planned


def _check_bounds(blocks: int, channels: int, stride: Fraction) -> None:
    """Bound what accumulates over layers that are each within their own bounds."""
    if blocks > MAX_BLOCKS:
        raise UserError(f"more than {MAX_BLOCKS} blocks up to this layer, including repeats")
    if channels > MAX_CHANNELS:
        raise UserError(f"more than {MAX_CHANNELS} channels")
    if not STRIDES[0] <= stride <= STRIDES[1]:
        raise UserError(f"its stride must be from {STRIDES[0]} to {STRIDES[1]}, not {stride}")


def _check_strides(block: type[PlannedModule], strides: Sequence[Fraction], place: str) -> None:
    """Raise UserError unless joined layers have one stride, and auxiliary outputs those of the main ones."""
    sizes = ", ".join(str(s) for s in strides)
    if issubclass(block, Head):
        main = block.main_sources(len(strides))
        if len(strides) > main and strides[main:] != strides[:main]:
            raise UserError(f"auxiliary sources must have the strides of the main ones, not {sizes}", where=place)
        if any(stride.denominator != 1 for stride in strides):
            raise UserError(f"sources must have whole-number strides, not {sizes}", where=place)
    elif len(set(strides)) > 1:
        raise UserError(f"sources have different strides ({sizes}) and cannot be joined", where=place)


def scale_anchors(anchors: Anchors | int, strides: Sequence[Fraction]) -> Anchors:
    """Anchors in pixels per scale; if only their number is given, initial sizes that grow with the stride."""
    if not isinstance(anchors, int):
        return anchors
    sizes = [_UNFITTED[i % 6] * 2 ** (i // 6) for i in range(2 * anchors)]
    return tuple(tuple(v * float(stride) for v in sizes) for stride in strides)


def _rows(value: Any, part: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{part} must be a list of rows [from, number, block, arguments]")
    return value


def _layer(row: Any, index: int, where: object) -> Layer:
    place = f"{where} layer {index}"
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list) or not isinstance(row[2], str):
        raise UserError(f"a row must be [from, number, block, arguments], not {row!r}", where=place)
    source, repeats, block, args = row
    given = source if isinstance(source, list) else [source]
    if not given or not all(isinstance(s, int) and not isinstance(s, bool) for s in given):
        raise UserError(f"from must be a layer number or a list of them, not {source!r}", where=place)
    block = block.removeprefix("nn.")
    if block not in BLOCKS:
        raise UserError(f"unknown block {block!r}", where=place, fix=f"use one of {', '.join(sorted(BLOCKS))}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= MAX_LAYERS:
        raise UserError(f"number must be a whole number from 1 to {MAX_LAYERS}, not {repeats!r}", where=place)
    values = tuple(_plain(arg, place) for arg in args)
    return Layer(tuple(source) if isinstance(source, list) else source, repeats, block, values)


def _plain(arg: Any, place: str) -> Any:
    """Convert an argument: lists to tuples, and the words None, True and False, common in these files, to values."""
    if isinstance(arg, list):
        return tuple(_plain(a, place) for a in arg)
    if arg is None or isinstance(arg, bool | int | float):
        return arg
    if isinstance(arg, str):
        return {"None": None, "True": True, "False": False}.get(arg, arg)
    raise UserError(f"an argument must be a number, a word or a list of these, not {arg!r}", where=place)


def _listed(value: Any) -> Any:
    """Convert tuples to lists, as in YAML."""
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _anchors(value: Any) -> Anchors | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(value, "anchors (their number per scale)", 1, 100)
    if not isinstance(value, list) or not value:
        raise UserError("anchors must be a list [w, h, w, h, …] in pixels per scale, or their number per scale")
    scales = []
    for scale in value:
        given = scale if isinstance(scale, list) else []
        flat = [v for item in given for v in (item if isinstance(item, list) else [item])]
        if len(flat) % 2 or not flat:
            raise UserError(f"the anchors of a scale must be pairs w, h, not {scale!r}")
        scales.append(tuple(_positive(v, "an anchor") for v in flat))
    return tuple(scales)


def _positive(value: Any, what: str) -> float:  # an int stays an int, so that it is written as in the file
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{what} must be a positive number, not {value!r}")
    return value
