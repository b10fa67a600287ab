"""Architecture files: YAML → a checked description of every layer. YAML is data: nothing in it is evaluated."""

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
from yolo_cli.model.heads import Head
from yolo_cli.model.plan import MAX_CHANNELS, MAX_CLASSES, Plan, PlannedModule, Scaling, integer

MAX_LAYERS = 2000
MAX_BLOCKS = 5000  # with all repeats; the largest published network has some 300
STRIDES = (Fraction(1, 16), Fraction(2**10))  # of any layer; beyond, its map is far larger than the image or nothing
_SIZES = ("n", "s", "m", "l", "x", "n6", "s6", "m6", "l6", "x6")  # `--cfg s` is short for yolov5s
# Anchors in strides for a file that leaves them to be fitted: COCO's smallest three over their stride of 8.
_UNFITTED = (1.25, 1.625, 2.0, 3.75, 4.125, 2.875)

Anchors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of an architecture file: where its input comes from, and what is built `repeats` times."""

    source: int | tuple[int, ...]  # as written: -1 is the layer before; a tuple for blocks that join layers
    repeats: int
    block: str
    args: tuple[Any, ...]

    def sources(self, index: int) -> tuple[int, ...]:
        """Absolute indices of the source layers; −1 is the image."""
        given = self.source if isinstance(self.source, tuple) else (self.source,)
        return tuple(index + s if s < 0 else s for s in given)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as data: what a file says, before any tensor exists."""

    name: str
    nc: int
    anchors: Anchors | int  # pixels, (w, h, w, h, …) per scale; or the number per scale, left to be fitted
    layers: tuple[Layer, ...]
    backbone: int  # layers that belong to the backbone
    depth: float = 1.0
    width: float = 1.0
    activation: str = "SiLU"
    anchor_grid: bool = False  # state dicts of older releases also hold the anchors in pixels, under this name

    @property
    def scaling(self) -> Scaling:
        """Its compound scaling."""
        return Scaling(self.depth, self.width)

    def with_classes(self, nc: int) -> "Architecture":
        """The same network for another number of classes."""
        return replace(self, nc=integer(nc, "nc", 1, MAX_CLASSES))

    def with_anchors(self, anchors: Anchors) -> "Architecture":
        """The same network with other anchors (pixels)."""
        return replace(self, anchors=tuple(tuple(float(v) for v in scale) for scale in anchors))

    def to_mapping(self) -> dict[str, Any]:
        """What a file of this architecture holds; `from_mapping` reads it back."""
        rows = [[_listed(la.source), la.repeats, la.block, _listed(la.args)] for la in self.layers]
        return {
            "name": self.name,
            "nc": self.nc,
            "depth_multiple": self.depth,
            "width_multiple": self.width,
            "activation": self.activation,
            **({"anchor_grid": True} if self.anchor_grid else {}),
            "anchors": _listed(self.anchors),
            "backbone": rows[: self.backbone],
            "head": rows[self.backbone :],
        }


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer with all that building it takes."""

    layer: Layer
    sources: tuple[int, ...]
    plan: Plan
    stride: Fraction  # input pixels per output cell


def find_architecture(cfg: str) -> Architecture:
    """An architecture by `--cfg`: a path, a shipped name, or a size such as `s` for yolov5s."""
    return read_architecture(assets.find("models", f"yolov5{cfg}" if cfg in _SIZES else cfg, option="--cfg"))


def read_architecture(path: Path) -> Architecture:
    """An architecture from a YAML file. Raises UserError naming file and layer."""
    return from_mapping(read_mapping(path), name=path.stem, where=path)


def from_mapping(mapping: Mapping[str, Any], *, name: str, where: object) -> Architecture:
    """An architecture from a file's content. Raises UserError naming `where` and the layer."""
    missing = [key for key in ("nc", "anchors", "backbone", "head") if key not in mapping]
    if missing:
        raise UserError(f"lacks {', '.join(missing)}", where=where, fix="see the shipped models/*.yaml")
    try:
        nc = integer(mapping["nc"], "nc", 1, MAX_CLASSES)
        depth = _positive(mapping.get("depth_multiple", 1.0), "depth_multiple")
        width = _positive(mapping.get("width_multiple", 1.0), "width_multiple")
        anchors = _anchors(mapping["anchors"])
        activation = mapping.get("activation", "SiLU")
        if not isinstance(activation, str):
            raise UserError(f"activation must be a name, not {activation!r}")
        make_activation(activation)
        anchor_grid = mapping.get("anchor_grid", False)
        if not isinstance(anchor_grid, bool):
            raise UserError(f"anchor_grid must be true or false, not {anchor_grid!r}")
        rows = [*_rows(mapping["backbone"], "backbone"), *_rows(mapping["head"], "head")]
        if len(rows) > MAX_LAYERS:
            raise UserError(f"{len(rows)} layers; at most {MAX_LAYERS} are built")
    except UserError as error:
        raise UserError(error.what, where=where, fix=error.fix) from None
    layers = tuple(_layer(row, index, where) for index, row in enumerate(rows))
    name = str(mapping.get("name", name))
    backbone = len(mapping["backbone"])
    architecture = Architecture(name, nc, anchors, layers, backbone, depth, width, activation, anchor_grid)
    plan_layers(architecture, where=where)  # a file that cannot be built is refused where it is read
    return architecture


def plan_layers(architecture: Architecture, *, where: object = "") -> list[PlannedLayer]:
    """Every layer with its channels and stride worked out. Raises UserError naming the layer."""
    planned: list[PlannedLayer] = []
    blocks = 0
    anchors = architecture.anchors
    for index, layer in enumerate(architecture.layers):
        place = f"{where or architecture.name} layer {index} ({layer.block})"
        sources = layer.sources(index)
        block = BLOCKS[layer.block]
        is_head = issubclass(block, Head)
        if is_head != (index == len(architecture.layers) - 1):
            raise UserError("the last layer, and no other, must be a detection head", where=place)
        if bad := [s for s in sources if not -1 <= s < index]:
            raise UserError(f"source {bad[0]} is not an earlier layer", where=place)
        channels = [planned[s].plan.channels if s >= 0 else 3 for s in sources]
        strides = [planned[s].stride if s >= 0 else Fraction(1) for s in sources]
        _check_strides(block, strides, place)
        known: dict[str, Any] = {"nc": architecture.nc}
        if issubclass(block, Head):
            known["anchors"] = scale_anchors(anchors, strides[: block.main_sources(len(strides))])
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
    """What no layer may bring about: each alone is bounded, and many of them are not."""
    if blocks > MAX_BLOCKS:
        raise UserError(f"more than {MAX_BLOCKS} blocks up to here, with all repeats")
    if channels > MAX_CHANNELS:
        raise UserError(f"more than {MAX_CHANNELS} channels")
    if not STRIDES[0] <= stride <= STRIDES[1]:
        raise UserError(f"its map would be {1 / stride} of the image")


def _check_strides(block: type[PlannedModule], strides: Sequence[Fraction], place: str) -> None:
    """Layers that are joined must be of one size, and an auxiliary output of the size of its main one."""
    sizes = ", ".join(str(s) for s in strides)
    if issubclass(block, Head):
        main = block.main_sources(len(strides))
        if len(strides) > main and strides[main:] != strides[:main]:
            raise UserError(f"its auxiliary sources must have the strides of its main ones, not {sizes}", where=place)
        if any(stride.denominator != 1 for stride in strides):
            raise UserError(f"its sources must be smaller than the image, not of strides {sizes}", where=place)
    elif len(set(strides)) > 1:
        raise UserError(f"its sources have different strides ({sizes}) and cannot be joined", where=place)


def scale_anchors(anchors: Anchors | int, strides: Sequence[Fraction]) -> Anchors:
    """Anchors in pixels for each scale; where they are left to be fitted, a spread around each stride."""
    if not isinstance(anchors, int):
        return anchors
    sizes = [_UNFITTED[i % 6] * 2 ** (i // 6) for i in range(2 * anchors)]
    return tuple(tuple(v * float(stride) for v in sizes) for stride in strides)


def _rows(value: Any, part: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{part} must be a list of [from, number, block, arguments]")
    return value


def _layer(row: Any, index: int, where: object) -> Layer:
    place = f"{where} layer {index}"
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list) or not isinstance(row[2], str):
        raise UserError(f"a row is [from, number, block, arguments], not {row!r}", where=place)
    source, repeats, block, args = row
    given = source if isinstance(source, list) else [source]
    if not given or not all(isinstance(s, int) and not isinstance(s, bool) for s in given):
        raise UserError(f"from must be a layer number or a list of them, not {source!r}", where=place)
    block = block.removeprefix("nn.")
    if block not in BLOCKS:
        raise UserError(f"unknown block {block!r}", where=place, fix=f"known are {', '.join(sorted(BLOCKS))}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= MAX_LAYERS:
        raise UserError(f"number must be a whole number from 1 to {MAX_LAYERS}, not {repeats!r}", where=place)
    values = tuple(_plain(arg, place) for arg in args)
    return Layer(tuple(source) if isinstance(source, list) else source, repeats, block, values)


def _plain(arg: Any, place: str) -> Any:
    """An argument as data: the habit of writing None, True and False in these files is understood."""
    if isinstance(arg, list):
        return tuple(_plain(a, place) for a in arg)
    if arg is None or isinstance(arg, bool | int | float):
        return arg
    if isinstance(arg, str):
        return {"None": None, "True": True, "False": False}.get(arg, arg)
    raise UserError(f"an argument is a number, a word or a list of these, not {arg!r}", where=place)


def _listed(value: Any) -> Any:
    """Tuples as the lists that files hold."""
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _anchors(value: Any) -> Anchors | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(value, "anchors (their number per scale)", 1, 100)
    if not isinstance(value, list) or not value:
        raise UserError("anchors must be a list per scale of w, h, w, h, … in pixels, or their number per scale")
    scales = []
    for scale in value:
        given = scale if isinstance(scale, list) else []
        flat = [v for item in given for v in (item if isinstance(item, list) else [item])]
        if len(flat) % 2 or not flat:
            raise UserError(f"anchors of a scale must be pairs w, h, not {scale!r}")
        scales.append(tuple(_positive(v, "an anchor") for v in flat))
    return tuple(scales)


def _positive(value: Any, what: str) -> float:  # an int stays one, as files and tables write it
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{what} must be a positive number, not {value!r}")
    return value
