"""A .cfg as an architecture: one layer per section with the same number, and the head after the last one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import MAX_CLASSES, MAX_LAYERS, Architecture, Layer
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.blocks.darknet import ACTIVATIONS
from yolo_cli.model.build import MAX_PARAMETERS
from yolo_cli.model.plan import MAX_CHANNELS, Plan, Scaling
from yolo_cli.weights.darknet.sections import Section, read_sections

# Keys that change what a network computes, and the only supported value of each.
_UNSUPPORTED = {
    "net": {"channels": 3},
    "convolutional": {"dilation": 1, "antialiasing": 0, "xnor": 0, "binary": 0, "assisted_excitation": 0, "deform": 0},
    "maxpool": {"antialiasing": 0, "maxpool_depth": 0},
    "upsample": {"scale": 1},
}
_DIFFERING_STRIDES = ("stride_x", "stride_y")


@dataclass(frozen=True, slots=True)
class DarknetNetwork:
    """The network of a .cfg, and its input size in pixels."""

    architecture: Architecture
    height: int
    width: int
    lines: tuple[int, ...]  # in the .cfg, of each layer except the head


@dataclass(frozen=True, slots=True)
class _Yolo:
    """A [yolo] section: one scale of the head."""

    anchors: tuple[int | float, ...]
    classes: int
    scale_xy: float
    new_coords: bool

    @property
    def count(self) -> int:
        return len(self.anchors) // 2


def read_network(path: Path) -> DarknetNetwork:
    """The network of a .cfg file. Raises UserError with the file and line of anything that is not supported."""
    sections = read_sections(path)
    if not sections or sections[0].kind not in ("net", "network"):
        where = sections[0].where() if sections else path
        raise UserError("a Darknet network begins with [net]", where=where, fix="check that this is a Darknet .cfg")
    if len(sections) - 1 > MAX_LAYERS:
        raise UserError(f"{len(sections) - 1} layers; at most {MAX_LAYERS} are supported", where=path)
    net, body = sections[0], sections[1:]
    _check_supported(net)
    return _Builder(path, body).network(*(net.integer(side, 416, 1, 16384) for side in ("height", "width")))


class _Builder:
    """Builds the layers one after another, and checks each against those before it."""

    def __init__(self, path: Path, sections: Sequence[Section]) -> None:
        self.path, self.sections = path, sections
        self.layers: list[Layer] = []
        self.plans: list[Plan] = []
        self.strides: list[Fraction] = []
        self.yolos: dict[int, _Yolo] = {}
        self.parameters = 0
        read = [(s, _yolo(s)) for s in sections if s.kind == "yolo"]
        if not read:
            raise UserError("no [yolo] section: this is not a detector", where=path)
        self.nc = read[0][1].classes
        for section, yolo in read:
            if yolo.classes != self.nc:
                what = f"{yolo.classes} classes, but {self.nc} in the first [yolo]"
                raise UserError(what, where=section.where("classes"))

    def network(self, height: int, width: int) -> DarknetNetwork:
        """The layers of all sections, then the head."""
        for index, section in enumerate(self.sections):
            if section.kind not in _LAYERS:
                known = ", ".join(f"[{kind}]" for kind in sorted(_LAYERS))
                raise UserError(
                    f"unknown section [{section.kind[:40]}]", where=section.where(), fix=f"known are {known}"
                )
            _check_supported(section)
            self._add(section, _LAYERS[section.kind](section, index, self))
        heads = [self.yolos[i] for i in sorted(self.yolos)]
        head = Layer(
            tuple(sorted(self.yolos)),
            1,
            "DarknetDetect",
            ("nc", "anchors", tuple(y.scale_xy for y in heads), tuple(y.new_coords for y in heads)),
        )
        architecture = Architecture(
            self.path.stem, self.nc, tuple(y.anchors for y in heads), (*self.layers, head), len(self.layers)
        )
        return DarknetNetwork(architecture, height, width, tuple(s.line for s in self.sections))

    def before(self, section: Section, index: int) -> int:
        """The index of the previous layer, −1 for the image. The output of a [yolo] cannot be an input."""
        if index - 1 in self.yolos:
            what = f"[{section.kind}] cannot use the output of a [yolo]"
            raise UserError(what, where=section.where(), fix="put a [route] between them")
        return index - 1

    def source(self, section: Section, index: int, key: str, number: int) -> int:
        """The absolute index of an earlier layer, from its number, or from a negative offset."""
        absolute = index + number if number < 0 else number
        if not 0 <= absolute < index:
            what = f"{key} {number} is not an earlier layer: this is layer {index}"
            raise UserError(what, where=section.where(key), fix=f"give 0 to {index - 1}, or -1 to -{index}")
        if absolute in self.yolos:
            raise UserError(f"{key} {number} is a [yolo], whose output cannot be used", where=section.where(key))
        return absolute

    def _add(self, section: Section, layer: Layer) -> None:
        index = len(self.layers)
        sources = layer.sources(index)
        channels = [self.plans[s].channels if s >= 0 else 3 for s in sources]
        strides = [self.strides[s] if s >= 0 else Fraction(1) for s in sources]
        args = [self.nc if isinstance(a, str) and a == "nc" else a for a in layer.args]
        try:
            if len(set(strides)) > 1:
                sizes = ", ".join(f"1/{s}" for s in strides)
                raise UserError(f"its sources have different sizes ({sizes} of the image)")
            plan = BLOCKS[layer.block].plan(channels, args, 1, Scaling())
            stride = strides[0] / plan.scale
            if stride < 1 or stride > 2**10:
                raise UserError(f"its output would be 1/{stride} of the image")
            if layer.block in ("DarknetConv", "DarknetOutput"):
                size, groups = layer.args[-6], layer.args[-3]
                self.parameters += channels[0] // groups * plan.channels * size**2
            if self.parameters > MAX_PARAMETERS:
                raise UserError(f"more than {MAX_PARAMETERS:,} parameters")
        except UserError as error:
            raise UserError(error.what, where=section.where(), fix=error.fix) from None
        self.layers.append(layer)
        self.plans.append(plan)
        self.strides.append(stride)


def _convolutional(section: Section, index: int, net: _Builder) -> Layer:
    net.before(section, index)
    filters = section.integer("filters", 1, 1, MAX_CHANNELS)
    size = section.integer("size", 1, 1, 31)
    padding = section.integer("padding", 0, 0, 31)
    activation = section.word("activation", "logistic", ACTIVATIONS)
    shape = (
        size,
        section.integer("stride", 1, 1, 16),
        size // 2 if section.flag("pad") else padding,
        section.integer("groups", 1, 1, MAX_CHANNELS),
        section.flag("batch_normalize"),
    )
    following = net.sections[index + 1] if index + 1 < len(net.sections) else None
    if following is None or following.kind != "yolo":
        return Layer(-1, 1, "DarknetConv", (filters, *shape, activation))
    yolo = _yolo(following)
    if filters != yolo.count * (5 + yolo.classes):
        raise UserError(
            f"{filters} filters, but the [yolo] after it has {yolo.count} anchors × (5 + {yolo.classes} classes)",
            where=section.where("filters"),
            fix=f"write filters={yolo.count * (5 + yolo.classes)}, or correct mask or classes",
        )
    # With new_coords this convolution applies the sigmoid. Here the head does, because losses need logits.
    if yolo.new_coords and activation != "logistic":
        what = f"the [yolo] after it has new_coords=1 and needs activation=logistic here, not {activation}"
        raise UserError(what, where=section.where("activation"))
    return Layer(-1, 1, "DarknetOutput", ("nc", yolo.count, *shape, "linear" if yolo.new_coords else activation))


def _maxpool(section: Section, index: int, net: _Builder) -> Layer:
    net.before(section, index)
    stride = section.integer("stride", 1, 1, 16)
    size = section.integer("size", stride, 1, 31)
    return Layer(-1, 1, "DarknetMaxPool", (size, stride, section.integer("padding", size - 1, 0, size - 1)))


def _upsample(section: Section, index: int, net: _Builder) -> Layer:
    net.before(section, index)
    return Layer(-1, 1, "Upsample", (None, section.integer("stride", 2, 1, 16), "nearest"))


def _dropout(section: Section, index: int, net: _Builder) -> Layer:
    net.before(section, index)
    probability = section.real("probability", 0.5)
    if not 0 <= probability < 1:
        raise UserError("probability must be from 0 to below 1", where=section.where("probability"))
    return Layer(-1, 1, "DarknetDropout", (probability,))


def _route(section: Section, index: int, net: _Builder) -> Layer:
    numbers = section.integers("layers")
    if not numbers:
        raise UserError("[route] needs layers=…", where=section.where("layers"))
    sources = tuple(net.source(section, index, "layers", number) for number in numbers)
    groups = section.integer("groups", 1, 1, MAX_CHANNELS)
    return Layer(sources, 1, "DarknetRoute", (groups, section.integer("group_id", 0, 0, groups - 1)))


def _shortcut(section: Section, index: int, net: _Builder) -> Layer:
    numbers = section.integers("from")
    if not numbers:
        raise UserError("[shortcut] needs from=…", where=section.where("from"))
    if index == 0:
        raise UserError("[shortcut] cannot be the first layer", where=section.where())
    net.before(section, index)
    if "weights_type" in section.values:
        section.word("weights_type", "none", ["none"])
    sources = (index - 1, *(net.source(section, index, "from", number) for number in numbers))
    return Layer(sources, 1, "DarknetShortcut", (section.word("activation", "linear", ACTIVATIONS),))


def _yolo_layer(section: Section, index: int, net: _Builder) -> Layer:
    if not index or net.layers[-1].block != "DarknetOutput":
        raise UserError("[yolo] must come right after a [convolutional]", where=section.where())
    net.yolos[index] = _yolo(section)
    return Layer(-1, 1, "DarknetYolo", ())


_LAYERS: dict[str, Callable[[Section, int, _Builder], Layer]] = {
    "convolutional": _convolutional,
    "dropout": _dropout,
    "maxpool": _maxpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "yolo": _yolo_layer,
}


def _yolo(section: Section) -> _Yolo:
    """The anchors that the mask of a [yolo] selects, its classes and its box coding."""
    anchors = section.numbers("anchors")
    if len(anchors) % 2 or not anchors or not all(0 < value < 1e6 for value in anchors):
        raise UserError("anchors must be pairs of positive numbers w, h", where=section.where("anchors"))
    pairs = list(zip(anchors[::2], anchors[1::2], strict=True))
    mask = section.integers("mask") if "mask" in section.values else list(range(len(pairs)))
    if bad := [i for i in mask if not 0 <= i < len(pairs)]:
        raise UserError(
            f"mask {bad[0]} is not one of {len(pairs)} anchors, 0 to {len(pairs) - 1}", where=section.where("mask")
        )
    if not 1 <= len(mask) <= 100:
        raise UserError("mask must select 1 to 100 anchors", where=section.where("mask"))
    scale_xy = section.real("scale_x_y", 1.0)
    if not 0 < scale_xy <= 10:
        raise UserError("scale_x_y must be above 0 and at most 10", where=section.where("scale_x_y"))
    classes = section.integer("classes", 20, 1, MAX_CLASSES)
    return _Yolo(tuple(v for i in mask for v in pairs[i]), classes, scale_xy, section.flag("new_coords"))


def _check_supported(section: Section) -> None:
    for key, only in _UNSUPPORTED.get(section.kind, {}).items():
        if section.real(key, only) != only:
            what = f"[{section.kind}] {key}={section.values[key].text} is not supported"
            raise UserError(what, where=section.where(key), fix=f"only {key}={only} is")
    for key in _DIFFERING_STRIDES:
        if key in section.values and section.real(key, 1) != section.real("stride", 1):
            raise UserError(f"{key} other than stride is not supported", where=section.where(key))
