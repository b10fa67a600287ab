"""The LOSSES table: every name that `--loss` and architecture files may give. A new loss is one entry here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from yolo_cli.batch import TargetCounts
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.errors import UserError
from yolo_cli.loss.detection import DetectionLoss, LossOutput, scaled_loss_weights
from yolo_cli.loss.tal import TALLoss
from yolo_cli.loss.yolox import YOLOXLoss
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.heads import AnchorHead, Head, RawMaps


@runtime_checkable
class Loss(Protocol):
    """What a training minimizes."""

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"], counts: TargetCounts | None = None) -> LossOutput:
        """Loss of a batch; `targets` are rows image, class, cx, cy, w, h, boxes as fractions of the network input.

        With `counts`, they are in the order that it describes.
        """
        ...


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What a loss is built for."""

    hyp: Hyperparameters
    img: tuple[int, int]  # height and width
    label_smoothing: float = 0.0
    closing: bool = False  # whether it is for the epochs without mosaic at the end
    world: World = SINGLE_PROCESS


_ANCHORS, _NO_ANCHORS, _NO_OBJECTNESS = "anchors", "no anchors", "no objectness"


@dataclass(frozen=True, slots=True)
class LossKind:
    """An entry of the table."""

    head: str  # what the heads that it is for have
    unused: tuple[str, ...]  # hyperparameters without effect, which must have their defaults
    smooths_labels: bool
    build: Callable[[DetectionModel, LossSettings], Loss]
    second_part: tuple[str, str] = ("obj", "Objectness loss")  # short and long name of `LossOutput.obj`


def _with_anchors(matching: str) -> Callable[[DetectionModel, LossSettings], Loss]:
    def build(model: DetectionModel, settings: LossSettings) -> Loss:
        assert isinstance(model.head, AnchorHead)
        return DetectionLoss.from_head(
            model.head,
            settings.hyp,
            scaled_loss_weights(settings.hyp, len(model.strides), model.nc, settings.img),
            settings.label_smoothing,
            matching=matching,
            auxiliary=model.has_auxiliary,
            world=settings.world,
        )

    return build


def _yolox(model: DetectionModel, settings: LossSettings) -> Loss:
    l1 = settings.hyp.l1 if settings.closing else 0.0
    return YOLOXLoss(model.head, settings.hyp, l1=l1, world=settings.world)


def _tal(model: DetectionModel, settings: LossSettings) -> Loss:
    return TALLoss(model.head, settings.hyp, world=settings.world)


_NO_EFFECT_WITHOUT_ANCHORS = ("obj_pw", "cls_pw", "fl_gamma")
LOSSES: dict[str, LossKind] = {
    "anchor": LossKind(_ANCHORS, unused=("l1",), smooths_labels=True, build=_with_anchors("anchor")),
    "ota": LossKind(_ANCHORS, unused=("l1",), smooths_labels=True, build=_with_anchors("ota")),
    "simota": LossKind(_NO_ANCHORS, unused=_NO_EFFECT_WITHOUT_ANCHORS, smooths_labels=False, build=_yolox),
    "tal": LossKind(
        _NO_OBJECTNESS,
        unused=("l1", *_NO_EFFECT_WITHOUT_ANCHORS),
        smooths_labels=False,
        build=_tal,
        second_part=("dfl", "Distribution focal loss"),
    ),
}


def build_loss(name: str, model: DetectionModel, settings: LossSettings) -> Loss:
    """The loss `name` for a model. Raises UserError where they do not go together; see `check_loss`."""
    check_loss(name, model, settings)
    return LOSSES[name].build(model, settings)


def check_loss(name: str, model: DetectionModel, settings: LossSettings) -> None:
    """Raises UserError for an unknown loss, one that is not for this model, and settings without effect on it."""
    where = f"--loss {name}"
    if name not in LOSSES:
        raise UserError("unknown loss", where=f"{model.architecture.name}, loss {name}", fix=f"give {_listed(LOSSES)}")
    kind = LOSSES[name]
    if kind.head != (has := _has(model.head)):
        fitting = [other for other, entry in LOSSES.items() if entry.head == has]
        raise UserError(f"{model.architecture.name} has {has}", where=where, fix=f"give --loss {_listed(fitting)}")
    if settings.label_smoothing and not kind.smooths_labels:
        raise UserError(f"has no effect with {where}", where="--label-smoothing", fix="leave it out")
    default = Hyperparameters()
    for key in kind.unused:
        if getattr(settings.hyp, key) != getattr(default, key):
            fix = f"set it to {getattr(default, key):g}, or leave it out"
            raise UserError(f"{key} has no effect with {where}", where="--hyp", fix=fix)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names)


def _has(head: Head) -> str:
    if not head.has_objectness:
        return _NO_OBJECTNESS
    return _ANCHORS if isinstance(head, AnchorHead) else _NO_ANCHORS
