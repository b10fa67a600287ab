"""What a training starts from: options, hyperparameters, dataset and model. A user's mistakes are reported here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli import plots
from yolo_cli.anchors.autoanchor import check_anchors
from yolo_cli.batch import prepare_images
from yolo_cli.config import AUTO_BATCH, Hyperparameters, TrainConfig
from yolo_cli.config.checks import resolve_tile
from yolo_cli.dataset.loader import train_loader
from yolo_cli.dataset.sampler import largest_multi_scale_size
from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.device import default_workers, seed_everything
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.distributed.world import SINGLE_PROCESS, World, per_rank_batch
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.loss.losses import LossSettings, build_loss, check_loss
from yolo_cli.model.build import DetectionModel, count_parameters, gflops
from yolo_cli.model.heads import AnchorHead
from yolo_cli.model.transfer import transfer
from yolo_cli.progress import Reporter
from yolo_cli.run import reports
from yolo_cli.run.folder import create_run_dir, write_options
from yolo_cli.run.lock import RunLock
from yolo_cli.train.autobatch import MEMORY_FRACTION, measure_batch
from yolo_cli.train.compiling import check_compiler
from yolo_cli.train.folded_norms import restore_norms
from yolo_cli.train.hyperparameters import HypChoice, read_hyperparameters
from yolo_cli.train.optim import freeze_layers, frozen_layers
from yolo_cli.train.recipe import SCHEDULED, Recipe, Workload, choose_recipe
from yolo_cli.train.resume import RESOLVED, ResumePoint, check_data, plain_options
from yolo_cli.train.train_data import TrainData, open_train_data
from yolo_cli.weights.license import inherited
from yolo_cli.weights.load import Weights, find_weights, load_weights, with_anchors_of
from yolo_cli.weights.networks import find_network
from yolo_cli.weights.published import PUBLISHED

NORM_BATCHES = 8  # batches of 16 images that folded batch norms get their statistics from


@dataclass(frozen=True, slots=True)
class TrainSetup:
    """What a training starts from."""

    config: TrainConfig  # with the effective batch size and image size
    hyp: Hyperparameters
    data: TrainData
    model: DetectionModel
    device: torch.device
    workers: int
    choice: HypChoice = field(default_factory=HypChoice)  # what --hyp asks for
    point: ResumePoint | None = None  # of the run that is continued
    requested: Mapping[str, Any] | None = None  # options in RESOLVED, as the user gave them
    base_license: str = ""  # of the weights that the training begins with

    @property
    def largest_img(self) -> tuple[int, int]:
        """The largest (height, width) of a batch."""
        return largest_img(self.config, self.config.img, self.model.stride)


def check_model_files(config: TrainConfig) -> None:
    """Raises UserError if `--weights` or `--cfg` does not exist."""
    if config.weights:
        find_weights(config.weights)
    if config.cfg:
        find_network(config.cfg)


def set_up(
    config: TrainConfig, point: ResumePoint | None, device: torch.device, world: World, reporter: Reporter
) -> TrainSetup:
    """Read hyperparameters and dataset, and build the model; with `point`, all as the run began.

    Raises UserError for everything that the user can correct.
    """
    config = point.config if point else config
    choice = HypChoice.from_state(point.state) if point else read_hyperparameters(config.hyp, reporter, config.loss)
    if config.batch == AUTO_BATCH and device.type != "cuda":
        raise UserError("is measured on a GPU only", where="--batch -1", fix="give a number on other devices")
    if config.sync_bn and world.size > 1 and device.type != "cuda":
        raise UserError("synchronizes GPUs only", where=f"--sync-bn --device {device.type}", fix="omit --sync-bn")
    if config.compile:
        check_compiler(device)  # before anything slow
    workers = default_workers(
        config.workers, max(config.batch // world.size, 1) if config.batch != AUTO_BATCH else 8, world.local_size
    )
    seed_everything(config.seed)
    with world.local_rank_zero_first():  # the others then read the cached labels
        data = open_train_data(config, workers, reporter)
    if point:
        check_data(point, data)
    options = plain_options(config)
    requested = point.state.get("requested") if point else {name: options[name] for name in RESOLVED}

    weights = initial_weights(config, reporter) if not point else None
    model = point.weights.build_model() if point else build_model(config, weights, data.names, reporter)
    recipe = _resumed(point) if point else _choose(config, choice, data, model)
    hyp = recipe.hyp
    base_license = point.weights.base_license if point else inherited(weights.license) if weights else ""
    img = checked_image_size(config.img, model.stride, reporter)
    config = replace(config, loss=config.loss or model.architecture.loss)
    loss_settings = LossSettings(hyp, img, config.label_smoothing)
    check_loss(config.loss, model, loss_settings)
    if not config.noautoanchor and not point:
        check_anchors(model, data.train.index, img, thr=hyp.anchor_t, seed=config.seed, reporter=reporter)
    if config.batch == AUTO_BATCH:
        loss = build_loss(config.loss, model.to(device).to(memory_format=torch.channels_last), loss_settings)
        batch = measure_batch(model, loss, largest_img(config, img, model.stride), device)
        config = replace(config, batch=-world.all_reduce_max(-batch) * world.size)  # the smallest of all processes
        reporter.info(f"--batch -1: {config.batch} images fill {MEMORY_FRACTION:.0%} of the free memory")
        recipe = _choose(config, choice, data, model)
        hyp = recipe.hyp
    if config.weights and not point and world.is_main:  # the other processes get the main one's weights
        images = islice(_training_images(config, hyp, data, img, model.stride, device), NORM_BATCHES)
        if count := restore_norms(model.to(device), images):
            reporter.info(f"{count} folded batch norms got statistics of training images")
    config = replace(config, img=img, tile=resolve_tile(config.tile, img), optimizer=recipe.optimizer, resume="")
    check_trainable(config, model, len(data.train.index), world)
    frozen = freeze_layers(model, config.freeze)
    batch = per_rank_batch(config.batch, world)
    reporter.info(
        f"{count_parameters(model):,} parameters{f' ({len(frozen)} tensors frozen)' if frozen else ''}, "
        f"{gflops(model, *img):.3g} GFLOPs at {img[1]}×{img[0]}, strides {list(model.strides)}, "
        + (f"{device}" if world.size == 1 else f"{world.size} processes, {batch} images each, on {device.type}")
    )
    if hyp.close_mosaic >= config.epochs:
        reporter.warn(f"close_mosaic {hyp.close_mosaic} of {config.epochs} epochs: all are without mosaic and mixup")
    reporter.info(recipe.describe())
    return TrainSetup(config, hyp, data, model, device, workers, choice, point, requested, base_license)


def replan(setup: TrainSetup, config: TrainConfig) -> Recipe:
    """The recipe for another number of epochs; what is already in use, such as augmentation, stays."""
    requested = replace(config, optimizer=(setup.requested or {}).get("optimizer", config.optimizer))
    recipe = _choose(requested, setup.choice, setup.data, setup.model)
    planned = {name: getattr(recipe.hyp, name) for name in SCHEDULED}
    return replace(recipe, hyp=replace(setup.hyp, **planned))


def _choose(config: TrainConfig, choice: HypChoice, data: TrainData, model: DetectionModel) -> Recipe:
    batch = config.batch if config.batch != AUTO_BATCH else TrainConfig().batch  # not measured yet
    classes = model.nc if isinstance(model.head, AnchorHead) else 0
    workload = Workload(len(data.train.index), batch, config.epochs, pretrained=bool(config.weights), classes=classes)
    return choose_recipe(choice, workload, config.optimizer)


def _resumed(point: ResumePoint) -> Recipe:
    return Recipe(point.hyp, point.config.optimizer, f"{point.config.hyp or 'defaults'}, as the run began")


def _training_images(
    config: TrainConfig, hyp: Hyperparameters, data: TrainData, img: tuple[int, int], stride: int, device: torch.device
) -> Iterator[Tensor]:
    """The network input of the first epoch's batches."""
    loader = train_loader(
        data.train.index, img=img, batch=16, hyp=hyp, seed=config.seed, workers=0, rect=config.rect, stride=stride
    )
    for batch in loader:
        yield prepare_images(batch.images, device)


def initial_weights(config: TrainConfig, reporter: Reporter) -> Weights | None:
    """The weights of `--weights`; None for a training from scratch. Raises UserError for a file that is unusable."""
    if not config.weights:
        return None
    return load_weights(find_weights(config.weights, reporter=reporter), cfg=config.cfg, reporter=reporter)


def build_model(
    config: TrainConfig, weights: Weights | None, names: Sequence[str], reporter: Reporter
) -> DetectionModel:
    """The model for the dataset's classes, of the architecture of `--cfg` or else of the weights."""
    if weights is None:
        cfg = config.cfg or "s"
        model = DetectionModel(find_network(cfg).with_classes(len(names)), names)
        reporter.info(f"{model.architecture.name} from scratch" + ("" if config.cfg else " (no --cfg: s)"))
        reporter.info(f"free weights to start from instead, trained on COCO: --weights {', '.join(PUBLISHED)}")
        return model
    architecture = find_network(config.cfg) if config.cfg else weights.architecture
    model = DetectionModel(architecture.with_classes(len(names)), names)
    # With --cfg, the anchors of that file are used; otherwise those that the weights were trained with.
    report = transfer(
        model, with_anchors_of(model, weights.state), exclude=("anchors", "anchor_grid") if config.cfg else ()
    )
    reporter.info(f"{model.architecture.name} from {weights.path}: {report.summary()}")
    if not report.loaded:
        raise UserError("none of its weights fit the model", where=weights.path, fix="leave out --cfg, or --weights")
    return model


def largest_img(config: TrainConfig, img: tuple[int, int], stride: int) -> tuple[int, int]:
    """The largest (height, width) of a batch at `img`: with --multi-scale, larger than `img`."""
    return largest_multi_scale_size(img, stride) if config.multi_scale else img


def check_trainable(config: TrainConfig, model: DetectionModel, images: int, world: World = SINGLE_PROCESS) -> None:
    """Raises UserError if no layer is left to train, or batch norm gets a single value per channel.

    `images` is the size of the training split.
    """
    count, frozen = len(model.model), frozen_layers(config.freeze)
    if frozen and max(frozen) >= count:
        raise UserError(f"the model has layers 0 to {count - 1}", where=f"--freeze {max(config.freeze)}")
    if len(frozen) == count:
        raise UserError("every layer is frozen, nothing is left to train", where="--freeze")
    cells = config.img[0] // model.stride * (config.img[1] // model.stride)
    batch, images = per_rank_batch(config.batch, world), -(-images // world.size)
    if cells == 1 and 1 in (min(batch, images), images % batch):
        raise UserError(
            f"a batch of one image has one cell at --img {config.img[0]}, and batch norm needs more",
            where=f"--batch {config.batch}",
            fix="give a larger --img, or a --batch that leaves no batch of a single image",
        )


def open_run_folder(setup: TrainSetup, job: ElasticJob, lock: RunLock, world: World) -> Path:
    """The run folder, locked and with its settings written: that of the continued run, or a new one."""
    folder = Path()
    if world.is_main:
        if setup.point:
            folder = setup.point.folder
        elif begun := job.unfinished_run(setup.config.project):  # by a start that ended before it saved a state
            folder = begun
        else:
            folder = create_run_dir(setup.config.project, setup.config.name, exist_ok=setup.config.exist_ok)
            lock.acquire(folder)
        write_settings(folder, setup)
        job.mark_started(folder)
    return world.broadcast_object(folder)


def write_settings(folder: Path, setup: TrainSetup) -> None:
    """Write opt.yaml, hyp.yaml, model.yaml, dataset_report.json and labels.jpg."""
    model, data = setup.model, setup.data
    (folder / "weights").mkdir(exist_ok=True)
    write_options(folder / "opt.yaml", setup.config)
    write_options(folder / "hyp.yaml", setup.hyp)
    anchors = tuple(tuple(scale) for scale in model.anchors_in_pixels())
    write_mapping(folder / "model.yaml", model.architecture.with_anchors(anchors).to_mapping())
    reports.write_dataset_report(folder, (data.train, data.val))
    if not setup.config.noplots:
        index = data.train.index
        plots.label_figure(index.classes, index.boxes, data.names, folder / "labels.jpg")
