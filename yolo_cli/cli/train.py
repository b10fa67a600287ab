"""`yolo train`."""

import sys
from typing import Annotated

import typer
from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_numbers
from yolo_cli.cli.given import given_arguments, given_options
from yolo_cli.cli.options import Data, ExistOk, Img, Name, Project, SingleCls, Strict, Workers
from yolo_cli.config import CACHES, LOSSES, NAN_POLICIES, OPTIMIZERS, TrainConfig
from yolo_cli.distributed.elastic import ElasticJob, PeerError, wait_for_failure_report
from yolo_cli.errors import StoppedError

D = TrainConfig()  # defaults are defined in the config only
IMG, FREEZE = Numbers(D.img), Numbers(D.freeze)


def train(
    weights: Annotated[
        str,
        Option(
            metavar="FILE",
            help="Initial weights: checkpoint (.pt), Darknet .weights, or a name such as yolox-nano. "
            "Default: train from scratch.",
        ),
    ] = D.weights,
    cfg: Annotated[
        str,
        Option(
            help="Architecture: a YAML file, a Darknet .cfg, a name from `yolo info --cfg list`, or n, s, m, l, x for "
            "YOLOv5 (n-tal and so on: without anchors). Default: that of --weights, or s."
        ),
    ] = D.cfg,
    data: Data = D.data,
    hyp: Annotated[
        str,
        Option(
            help="Hyperparameters: auto (chosen by dataset size, number of epochs and initial weights), a YAML file, "
            "or a built-in name such as scratch-low. Single values can follow: auto,lr0=0.002,mosaic=0.5."
        ),
    ] = D.hyp,
    epochs: Annotated[int, Option(help="Number of epochs.")] = D.epochs,
    time: Annotated[
        str,
        Option(
            metavar="DURATION",
            help="Time budget for the whole run instead of --epochs, such as 30m or 1h30m. The first epochs are "
            "measured to plan the number of epochs.",
        ),
    ] = D.time,
    batch: Annotated[
        int, Option(help="Images per batch, summed over all devices. -1: as many as fit into GPU memory.")
    ] = D.batch,
    img: Img = IMG,
    optimizer: Annotated[
        str, Option(metavar="|".join(OPTIMIZERS), help="Optimizer. Default: that of --hyp auto, or SGD.")
    ] = D.optimizer,
    loss: Annotated[
        str,
        Option(
            metavar="|".join(LOSSES),
            help="Loss of YOLOv5 (anchor), YOLOv7 (ota), YOLOX (simota) or TOOD (tal). Models with anchors take "
            "`anchor` or `ota`, YOLOX models `simota`, those without objectness `tal`. Default: the loss of the model.",
        ),
    ] = D.loss,
    cos_lr: Annotated[
        bool, Option("--cos-lr", help="Use a cosine learning rate schedule instead of a linear one.")
    ] = D.cos_lr,
    label_smoothing: Annotated[float, Option(help="Label smoothing, 0 (off) to 1 (not included).")] = D.label_smoothing,
    patience: Annotated[
        int,
        Option(
            help="Early stopping: end after this many epochs without a better fitness (mostly mAP@0.5:0.95). 0: never."
        ),
    ] = D.patience,
    freeze: Annotated[
        Numbers,
        Option(
            parser=parse_numbers,
            metavar="INT …",
            help="Layers to freeze: one number for the first N layers (10: layers 0 to 9), or several layer indices "
            "(0 3 5).",
        ),
    ] = FREEZE,
    rect: Annotated[
        bool,
        Option("--rect", help="Rectangular training: batches of images with similar aspect ratio. Disables mosaic."),
    ] = D.rect,
    tile: Annotated[
        int,
        Option(
            metavar="[INT]",
            help="For small objects in large images: train on tiles of this size in pixels, and evaluate in tiles. "
            "Without a value: the size of --img. 0: no tiles.",
        ),
    ] = D.tile,
    multi_scale: Annotated[
        bool, Option("--multi-scale", help="Vary the image size per batch between 0.5 and 1.5 times --img.")
    ] = D.multi_scale,
    image_weights: Annotated[
        bool,
        Option(
            "--image-weights", help="Sample images more often if their classes had a low AP in the last evaluation."
        ),
    ] = D.image_weights,
    single_cls: SingleCls = D.single_cls,
    noautoanchor: Annotated[
        bool, Option("--noautoanchor", help="Keep the anchors even if they match few boxes of the dataset.")
    ] = D.noautoanchor,
    device: Annotated[
        str,
        Option(
            help="Device: cpu, mps, the index of a GPU, or several GPUs (0,1,2,3) to train on together. "
            "Default: the first GPU, or the CPU if there is none."
        ),
    ] = D.device,
    sync_bn: Annotated[
        bool,
        Option("--sync-bn", help="Compute batch norm statistics over the whole batch of all GPUs (SyncBatchNorm)."),
    ] = D.sync_bn,
    compile: Annotated[
        bool,
        Option(
            "--compile",
            help="Compile the network with torch.compile: a slower start and faster batches. Needs a C++ compiler.",
        ),
    ] = D.compile,
    workers: Workers = D.workers,
    cache: Annotated[
        str,
        Option(
            metavar=f"[{'|'.join(CACHES)}]",
            help="Cache decoded images, in memory or in the cache folder. Without a value: ram.",
        ),
    ] = D.cache,
    shuffle_window: Annotated[
        int,
        Option(
            help="Number of tar shards whose images are shuffled together, so that few shards are read at a time. "
            "0: all. -1: 8 for shards at URLs, all for shards on a disk."
        ),
    ] = D.shuffle_window,
    resume: Annotated[
        str,
        Option(
            metavar="[RUN]",
            help="Resume an interrupted run, given by its folder (runs/exp). Without a value: the newest training run.",
        ),
    ] = D.resume,
    save_period: Annotated[
        int, Option(help="Also keep the checkpoint of every N-th epoch, as epochN.pt. -1: off.")
    ] = D.save_period,
    save_every: Annotated[
        int, Option(help="Save last.pt, from which a run resumes, also every N batches. 0: only after each epoch.")
    ] = D.save_every,
    save_minutes: Annotated[
        float, Option(help="Save last.pt also every N minutes. 0: only after each epoch.")
    ] = D.save_minutes,
    nosave: Annotated[
        bool, Option("--nosave", help="Do not save checkpoints after each epoch, only after the last.")
    ] = D.nosave,
    noval: Annotated[bool, Option("--noval", help="Evaluate only after the last epoch.")] = D.noval,
    noplots: Annotated[bool, Option("--noplots", help="Do not save plots and report.html.")] = D.noplots,
    nan_policy: Annotated[
        str,
        Option(
            metavar="|".join(NAN_POLICIES), help="If the loss is NaN or infinite: stop training, or skip the batch."
        ),
    ] = D.nan_policy,
    seed: Annotated[int, Option(help="Random seed.")] = D.seed,
    repeats: Annotated[
        int,
        Option(
            help="Train this many runs with consecutive seeds (exp, exp-seed1, …); print mean, standard error and best."
        ),
    ] = D.repeats,
    strict: Strict = D.strict,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
) -> None:
    """Train a detector on labeled images: YOLO txt, COCO, Pascal VOC, CVAT, LabelMe."""
    options = locals()  # one parameter per field of the config, which a test checks
    job = ElasticJob.from_environment()
    if job.has_failed():  # checked before anything slow is imported
        raise typer.Exit(2)
    try:
        with job.record_failure():
            config = TrainConfig(**options)
        _launch_or_run(config)
    except PeerError as failed:
        if job.has_failed():  # the process that failed first prints the reason
            wait_for_failure_report()
        else:
            from yolo_cli.cli.terminal import Terminal

            Terminal().warn(str(failed))
        raise typer.Exit(failed.status) from None


def _launch_or_run(config: TrainConfig) -> None:
    from yolo_cli.cli.terminal import Terminal
    from yolo_cli.commands.train import needs_launch, run, run_per_device

    try:
        if config.repeats > 1:
            from yolo_cli.commands.train_repeats import run_repeats

            result = run_repeats(config, Terminal(), given=given_options())
            raise typer.Exit(result if isinstance(result, int) else 0)
        if needs_launch(config):
            raise typer.Exit(run_per_device(config, given_arguments()))
        run(config, Terminal(), given=given_options())
    except StoppedError as stopped:
        sys.exit(stopped.status)  # the training has reported why it stopped
