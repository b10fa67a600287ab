"""Builds the torch module that an architecture describes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import Anchors, Architecture, PlannedLayer, plan_layers
from yolo_cli.model.blocks import BLOCKS
from yolo_cli.model.blocks.conv import BN_EPS, BN_MOMENTUM
from yolo_cli.model.heads import Head, RawMaps
from yolo_cli.model.plan import PlannedModule

MAX_PARAMETERS = 1_000_000_000  # three times the largest published detector


class DetectionModel(nn.Module):
    """A detector: layers in file order under `model`, as published state dicts name them.

    `forward` gives raw maps in training and in evaluation alike; `decode` turns them into boxes. Image sides must be
    multiples of `stride`. More parameters than `most` are refused before memory is asked for.
    """

    def __init__(self, architecture: Architecture, names: Sequence[str] = (), *, most: int = MAX_PARAMETERS) -> None:
        super().__init__()
        self.architecture = architecture
        self.names = tuple(names) or tuple(str(i) for i in range(architecture.nc))
        planned = plan_layers(architecture)
        _check_size(planned, architecture, most)
        self.model = nn.ModuleList(_build(layer, architecture) for layer in planned)
        self.sources = [layer.sources for layer in planned]
        self.joins = [BLOCKS[layer.layer.block].joins for layer in planned]
        self.kept = frozenset(s for i, layer in enumerate(planned) for s in layer.sources if s != i - 1)
        main = planned[-1].sources[: self.head.main_sources(len(planned[-1].sources))]
        # What inference takes: without the layers that feed auxiliary outputs alone.
        self.inference_sources = [*self.sources[:-1], main]
        self.inference_layers = _reached(self.inference_sources)
        self.head.place([int(planned[s].stride) for s in main], stores_anchor_grid=architecture.anchor_grid)
        self.stride = math.lcm(*(int(layer.stride) for layer in planned if layer.stride >= 1))
        self.fused = False

    @property
    def head(self) -> Head:
        """The detection head."""
        head = self.model[-1]
        assert isinstance(head, Head)
        return head

    @property
    def has_auxiliary(self) -> bool:
        """Whether the head has outputs for training alone."""
        return len(self.inference_sources[-1]) < len(self.sources[-1])

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.architecture.nc

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell, scale by scale."""
        return self.head.strides

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawMaps:
        """Raw predictions per scale for images in 0 … 1; sides must be multiples of `stride`.

        In training, a head with auxiliary outputs gives their maps after its main ones.
        """
        whole = self.training and not self.fused
        sources = self.sources if whole else self.inference_sources
        kept: dict[int, Any] = {-1: images}
        x: Any = images
        for index, layer in enumerate(self.model):
            if not whole and index not in self.inference_layers:
                continue
            inputs = [x if s == index - 1 else kept[s] for s in sources[index]]
            x = layer(inputs if self.joins[index] else inputs[0])
            if index in self.kept:
                kept[index] = x
        maps: RawMaps = x
        return maps

    def decode(self, raw: RawMaps) -> Float[Tensor, "b n o"]:
        """Rows cx, cy, w, h in pixels, objectness, class probabilities."""
        return self.head.decode(raw)

    @torch.no_grad()
    def set_anchors(self, anchors: Anchors) -> None:
        """Replace the anchors, (w, h, w, h, …) in pixels per scale; the architecture takes them over."""
        steps = self.head.anchors.new_tensor(self.strides).reshape(-1, 1, 1)
        most = 2 * self.head.anchors.shape[1]  # a scale with fewer anchors than another is filled up with zeros
        filled = [[*scale, *[0.0] * (most - len(scale))] for scale in anchors]
        pixels = self.head.anchors.new_tensor(filled).reshape(self.head.anchors.shape)
        self.head.anchors.copy_(pixels / steps)
        self.architecture = self.architecture.with_anchors(anchors)

    def anchors_in_pixels(self) -> list[list[float]]:
        """Anchors per scale, flat (w, h, w, h, …)."""
        steps = self.head.anchors.new_tensor(self.strides).reshape(-1, 1, 1)
        pixels: list[list[float]] = (self.head.anchors * steps).flatten(1).tolist()
        # a scale with fewer anchors than another is filled up with zeros
        return [[value for value in scale if value > 0] for scale in pixels]


def _reached(sources: Sequence[Sequence[int]]) -> frozenset[int]:
    """The layers that the last one depends on, itself included."""
    reached = {len(sources) - 1}
    for index in reversed(range(len(sources))):
        if index in reached:
            reached.update(s for s in sources[index] if s >= 0)
    return frozenset(reached)


def layer_rows(architecture: Architecture) -> Iterator[tuple[int, str, int, int, str, str]]:
    """A row a layer: index, sources as written, repeats, parameters, block, arguments (after scaling)."""
    with torch.device("meta"):  # shapes alone: nothing is allocated
        model = DetectionModel(architecture)
    for index, (planned, module) in enumerate(zip(plan_layers(architecture), model.model, strict=True)):
        source = planned.layer.source
        written = str(list(source)) if isinstance(source, tuple) else str(source)
        parameters = count_parameters(module)
        repeats = max(planned.plan.repeats, planned.plan.inner)
        yield index, written, repeats, parameters, planned.layer.block, str(list(planned.plan.args))


def count_parameters(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _check_size(planned: Sequence[PlannedLayer], architecture: Architecture, most: int) -> None:
    """Refuse what no machine could hold before any of it is allocated."""
    total = 0
    with torch.device("meta"):
        for index, layer in enumerate(planned):
            total += count_parameters(_build(layer, architecture))
            if total > MAX_PARAMETERS:
                raise _too_large(f"{architecture.name} layer {index} ({layer.layer.block})")
    if total > most:
        raise UserError(f"{total:,} parameters, where {most:,} are given", where=architecture.name)


def _too_large(where: str) -> UserError:
    what = f"more than {MAX_PARAMETERS:,} parameters, which no machine could hold"
    return UserError(what, where=where, fix="take fewer channels or repeats")


def _build(planned: PlannedLayer, architecture: Architecture) -> nn.Module:
    block = BLOCKS[planned.layer.block]
    options = {"activation": architecture.activation} if block.takes_activation else {}
    copies, parameters = [], 0
    try:
        for copy in range(planned.plan.repeats):
            args = list(planned.plan.args)
            if copy:
                args[0] = planned.plan.channels  # a later copy takes in what the one before puts out
            copies.append(_with_norms(block(*args, **options)))
            parameters += count_parameters(copies[-1])
            if parameters > MAX_PARAMETERS:
                raise _too_large("")
    except UserError as error:
        raise UserError(error.what, where=f"{architecture.name} ({planned.layer.block})", fix=error.fix) from None
    except (RuntimeError, TypeError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise UserError(
            f"{planned.layer.block} cannot be built from {planned.layer.args}: {detail}", where=architecture.name
        ) from None
    return copies[0] if len(copies) == 1 else nn.Sequential(*copies)


def _with_norms(block: PlannedModule) -> PlannedModule:
    """A block whose batch norms have the settings that published detectors give to all of theirs."""
    if block.detector_norms:
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = BN_EPS, BN_MOMENTUM
    return block


@torch.no_grad()
def gflops(model: DetectionModel, height: int, width: int) -> float:
    """Billions of floating-point operations (a multiply-add is two) of one image through the convolutions.

    One cell of the coarsest scale is measured and multiplied: the work of a convolution grows with the area. (torch's
    own counter gives the same figure, but importing what it needs takes seconds at every start.)
    """
    counted = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Conv2d)
        counted += 2 * module.weight[0].numel() * output.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    training, parameter = model.training, next(model.parameters())
    model.eval()(torch.zeros(1, 3, model.stride, model.stride, device=parameter.device, dtype=parameter.dtype))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return counted * height * width / model.stride**2 / 1e9
