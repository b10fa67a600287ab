"""The detection model: the torch module that an architecture describes."""

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
from yolo_cli.model.heads import AnchorHead, Head, RawMaps
from yolo_cli.model.plan import PlannedModule

MAX_PARAMETERS = 1_000_000_000  # three times the largest published detector


class DetectionModel(nn.Module):
    """A detector: the layers in file order, named `model.N` as in published state dicts.

    `forward` returns raw predictions in training and in eval mode; `decode` converts them to boxes. Image sides must
    be multiples of `stride`. Raises UserError for more than `max_parameters` before memory is allocated.
    """

    def __init__(
        self, architecture: Architecture, names: Sequence[str] = (), *, max_parameters: int = MAX_PARAMETERS
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.names = tuple(names) or tuple(str(i) for i in range(architecture.nc))
        planned = plan_layers(architecture)
        _check_size(planned, architecture, max_parameters)
        self.model = nn.ModuleList(_build(layer, architecture) for layer in planned)
        self.sources = [layer.sources for layer in planned]
        self.joins = [BLOCKS[layer.layer.block].joins for layer in planned]
        # Layers whose outputs a layer other than the next one takes.
        self.saved = frozenset(s for i, layer in enumerate(planned) for s in layer.sources if s != i - 1)
        main = planned[-1].sources[: self.head.main_sources(len(planned[-1].sources))]
        # Inference skips the layers that only auxiliary outputs use.
        self.inference_sources = [*self.sources[:-1], main]
        self.inference_layers = _reached(self.inference_sources)
        if isinstance(self.head, AnchorHead):
            self.head.stores_anchor_grid = architecture.anchor_grid
        self.head.place([int(planned[s].stride) for s in main])
        self.stride = math.lcm(*(int(layer.stride) for layer in planned if layer.stride >= 1))
        self.fused = False

    @property
    def head(self) -> Head:
        """The last layer."""
        head = self.model[-1]
        assert isinstance(head, Head)
        return head

    @property
    def has_auxiliary(self) -> bool:
        """Whether the head has outputs that are used in training only."""
        return len(self.inference_sources[-1]) < len(self.sources[-1])

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.architecture.nc

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell, per scale."""
        return self.head.strides

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawMaps:
        """Raw predictions per scale for images in 0 … 1, whose sides must be multiples of `stride`.

        In training, the auxiliary outputs, if any, follow the main ones.
        """
        whole = self.training and not self.fused
        sources = self.sources if whole else self.inference_sources
        saved: dict[int, Any] = {-1: images}
        x: Any = images
        for index, layer in enumerate(self.model):
            if not whole and index not in self.inference_layers:
                continue
            inputs = [x if s == index - 1 else saved[s] for s in sources[index]]
            x = layer(inputs if self.joins[index] else inputs[0])
            if index in self.saved:
                saved[index] = x
        return x

    def decode(self, raw: RawMaps) -> Float[Tensor, "b n k"]:
        """Predictions of all scales: cx, cy, w, h in pixels, objectness, class probabilities."""
        return self.head.decode(raw)

    @torch.no_grad()
    def set_anchors(self, anchors: Anchors) -> None:
        """Replace the anchors of the head and of `architecture`: (w, h, w, h, …) in pixels per scale.

        Raises ValueError for a head without anchors.
        """
        if not isinstance(self.head, AnchorHead):
            raise ValueError("the head has no anchors")
        own = self.head.anchors
        steps = own.new_tensor(self.strides).reshape(-1, 1, 1)
        length = 2 * own.shape[1]  # a scale with fewer anchors than others is padded with zeros
        padded = [[*scale, *[0.0] * (length - len(scale))] for scale in anchors]
        own.copy_(own.new_tensor(padded).reshape(own.shape) / steps)
        self.architecture = self.architecture.with_anchors(anchors)

    def anchors_in_pixels(self) -> list[list[float]]:
        """Anchors per scale as flat lists (w, h, w, h, …); an empty list for a head without anchors."""
        if not isinstance(self.head, AnchorHead):
            return []
        steps = self.head.anchors.new_tensor(self.strides).reshape(-1, 1, 1)
        pixels: list[list[float]] = (self.head.anchors * steps).flatten(1).tolist()
        # without the zeros that pad a scale with fewer anchors
        return [[value for value in scale if value > 0] for scale in pixels]


def _reached(sources: Sequence[Sequence[int]]) -> frozenset[int]:
    """The last layer and those that it depends on."""
    reached = {len(sources) - 1}
    for index in reversed(range(len(sources))):
        if index in reached:
            reached.update(s for s in sources[index] if s >= 0)
    return frozenset(reached)


def layer_rows(architecture: Architecture) -> Iterator[tuple[int, str, int, int, str, str]]:
    """One row per layer: index, sources as written, repeats, parameters, block, arguments after scaling."""
    with torch.device("meta"):  # shapes without memory
        model = DetectionModel(architecture)
    for index, (planned, module) in enumerate(zip(plan_layers(architecture), model.model, strict=True)):
        source = planned.layer.source
        written = str(list(source)) if isinstance(source, tuple) else str(source)
        parameters = count_parameters(module)
        repeats = max(planned.plan.repeats, planned.plan.inner)
        yield index, written, repeats, parameters, planned.layer.block, str(list(planned.plan.args))


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _check_size(planned: Sequence[PlannedLayer], architecture: Architecture, max_parameters: int) -> None:
    """Raise UserError for a model that is too large, before memory is allocated."""
    total = 0
    with torch.device("meta"):
        for index, layer in enumerate(planned):
            total += count_parameters(_build(layer, architecture))
            if total > MAX_PARAMETERS:
                raise _too_large(f"{architecture.name} layer {index} ({layer.layer.block})")
    if total > max_parameters:
        raise UserError(f"{total:,} parameters, expected at most {max_parameters:,}", where=architecture.name)


def _too_large(where: str) -> UserError:
    return UserError(f"more than {MAX_PARAMETERS:,} parameters", where=where, fix="use fewer channels or repeats")


def _build(planned: PlannedLayer, architecture: Architecture) -> nn.Module:
    block = BLOCKS[planned.layer.block]
    options = {"activation": architecture.activation} if block.takes_activation else {}
    copies, parameters = [], 0
    try:
        for copy in range(planned.plan.repeats):
            args = list(planned.plan.args)
            if copy:
                args[0] = planned.plan.channels  # its input is the output of the copy before
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
    """Set eps and momentum of the block's batch norms to those of published detectors."""
    if block.detector_norms:
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = BN_EPS, BN_MOMENTUM
    return block


@torch.no_grad()
def gflops(model: DetectionModel, height: int, width: int) -> float:
    """Billions of floating-point operations of all convolutions for one image; a multiply-add counts as two.

    Counted on an image of one cell of the coarsest scale and multiplied by the area. torch.utils.flop_counter gives
    the same number, but its import takes seconds.
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
