"""What a training starts from: hyperparameters, data, model. The user's mistakes show here, before any work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from yolo_cli.config import LOSSES, Hyperparameters, TrainConfig
from yolo_cli.dataset.splits import Split, class_names, load_split, prepare_dataset
from yolo_cli.distributed.world import SINGLE_PROCESS, World, per_rank_batch
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.io.yaml_file import read_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.model.transfer import transfer
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import find_weights, load_weights, with_anchors_of
from yolo_cli.weights.networks import find_network

# Keys of older hyperparameter files that have no counterpart here; accepted where they ask for nothing.
_WITHOUT_EFFECT = {"iou_t": None, "copy_paste": 0.0, "paste_in": 0.0, "anchors": None}


def read_hyperparameters(hyp: str, reporter: Reporter, loss: str = "") -> Hyperparameters:
    """Hyperparameters of `--hyp`: a path or a shipped name; the defaults where it is left out.

    Raises UserError where the file asks for another loss than `loss`, that of `--loss`.
    """
    if not hyp:
        return Hyperparameters()
    path = assets.find("data/hyp", hyp, option="--hyp")
    values = read_mapping(path)
    known = {field.name: field.type for field in fields(Hyperparameters)}
    # YOLOv7's files choose the loss; here an option does, and the two must not disagree in silence.
    if (loss_ota := values.pop("loss_ota", None)) is not None:
        if loss_ota not in (0, 1):
            raise UserError(f"loss_ota must be 0 or 1, not {loss_ota!r}", where=path)
        loss = loss or LOSSES[0]
        if (asked := LOSSES[int(loss_ota)]) != loss:
            fix = f"give --loss {asked}, or take loss_ota out of the file"
            raise UserError(f"loss_ota {loss_ota} does not go with --loss {loss}", where=path, fix=fix)
    for key in [k for k in values if k in _WITHOUT_EFFECT]:
        value = values.pop(key)
        if value and _WITHOUT_EFFECT[key] is not None:
            raise UserError(f"{key} is not supported", where=path, fix="set it to 0")
        reporter.warn(f"{path}: {key} has no effect here")
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"unknown key {unknown[0]}", where=path, fix=f"known are {', '.join(known)}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(f"{key} must be a number from 0 up, not {value!r}", where=path)
    numbers: dict[str, Any] = {key: int(v) if known[key] is int else float(v) for key, v in values.items()}
    try:
        return Hyperparameters(**numbers)
    except UserError as error:
        raise UserError(error.what, where=path) from None


def check_model_files(config: TrainConfig) -> None:
    """Raises UserError where `--weights` or `--cfg` names nothing that exists."""
    if config.weights:
        find_weights(config.weights)
    if config.cfg:
        find_network(config.cfg)


@dataclass(frozen=True, slots=True)
class TrainData:
    """The two splits of a training and the names of their classes."""

    train: Split
    val: Split
    names: tuple[str, ...]


def open_train_data(config: TrainConfig, workers: int, reporter: Reporter) -> TrainData:
    """Both splits of `--data`, indexed."""
    spec = prepare_dataset(config.data, reporter)
    train, val = (
        load_split(spec, split, single_cls=config.single_cls, strict=config.strict, workers=workers, reporter=reporter)
        for split in ("train", "val")
    )
    if not len(train.index.boxes):
        raise UserError("the training split holds no boxes", where=spec.source, fix="check where the labels lie")
    return TrainData(train, val, class_names(spec, single_cls=config.single_cls))


def build_model(config: TrainConfig, names: Sequence[str], reporter: Reporter) -> DetectionModel:
    """The model to train, for the data set's classes: from `--weights`, from `--cfg`, or the one into the other."""
    if not config.weights:
        cfg = config.cfg or "s"
        model = DetectionModel(find_network(cfg).with_classes(len(names)), names)
        reporter.info(f"{model.architecture.name} from scratch" + ("" if config.cfg else " (--cfg left out: s)"))
        return model
    weights = load_weights(find_weights(config.weights), cfg=config.cfg, reporter=reporter)
    architecture = find_network(config.cfg) if config.cfg else weights.architecture
    model = DetectionModel(architecture.with_classes(len(names)), names)
    # With --cfg the anchors are that file's; else those that the weights were trained with.
    report = transfer(
        model, with_anchors_of(model, weights.state), exclude=("anchors", "anchor_grid") if config.cfg else ()
    )
    reporter.info(f"{model.architecture.name} from {weights.path}: {report.summary()}")
    if not report.loaded:
        raise UserError("none of its weights fit the model", where=weights.path, fix="leave out --cfg, or --weights")
    return model


def describe_hyperparameters(hyp: Hyperparameters) -> str:
    """Those that differ from the defaults, in one line."""
    defaults = asdict(Hyperparameters())
    changed = [f"{key} {value:g}" for key, value in asdict(hyp).items() if value != defaults[key]]
    return "hyperparameters: defaults" + (f" but {', '.join(changed)}" if changed else "")


def check_trainable(
    config: TrainConfig, model: DetectionModel, img: tuple[int, int], images: int, world: World = SINGLE_PROCESS
) -> None:
    """Refuse what leaves nothing to train, or batch norm nothing to average. Raises UserError naming the option."""
    count = len(model.model)
    frozen = set(range(config.freeze[0])) if len(config.freeze) == 1 else set(config.freeze)
    if frozen and max(frozen) >= count:
        raise UserError(f"the model has layers 0 to {count - 1}", where=f"--freeze {max(config.freeze)}")
    if len(frozen) == count:
        raise UserError("every layer is frozen, nothing is left to train", where="--freeze")
    smallest = img[0] // model.stride * (img[1] // model.stride)
    batch, images = per_rank_batch(config.batch, world), -(-images // world.size)
    if smallest == 1 and 1 in (min(batch, images), images % batch):
        raise UserError(
            f"a batch of one image has one cell at --img {img[0]}, and batch norm nothing to average",
            where=f"--batch {config.batch}",
            fix="give a larger --img, or a --batch that leaves no single image over",
        )
