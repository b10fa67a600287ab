"""`yolo train`."""

import sys
from typing import Annotated

import typer
from typer import Option

from yolo_cli.cli.arguments import Numbers, parse_numbers
from yolo_cli.cli.given import given_arguments, given_options
from yolo_cli.cli.options import Data, ExistOk, Img, Name, Project, SingleCls, Strict, Workers
from yolo_cli.config import TrainConfig
from yolo_cli.distributed.elastic import ElasticJob, PeerError, wait_for_failure_report

D = TrainConfig()  # defaults live in the config alone
IMG, FREEZE = Numbers(D.img), Numbers(D.freeze)


def train(
    weights: Annotated[
        str, Option(help="Weights to start from (ours, a published .pt or Darknet .weights); left out: from scratch.")
    ] = D.weights,
    cfg: Annotated[
        str, Option(help="Architecture: a YAML file, a Darknet .cfg, a shipped name, or n, s, m, l, x.")
    ] = D.cfg,
    data: Data = D.data,
    hyp: Annotated[str, Option(help="Hyperparameters: a YAML file or a shipped name.")] = D.hyp,
    epochs: Annotated[int, Option(help="Passes over the training split.")] = D.epochs,
    batch: Annotated[
        int,
        Option("--batch", "--batch-size", help="Images a batch, of all devices together; -1: as many as a GPU holds."),
    ] = D.batch,
    img: Img = IMG,
    rect: Annotated[bool, Option("--rect", help="Rectangular batches, without mosaic.")] = D.rect,
    resume: Annotated[
        str, Option(metavar="[RUN]", help="Continue a run exactly where it stopped; alone: the newest.")
    ] = D.resume,
    noval: Annotated[bool, Option("--noval", help="Validate after the last epoch only.")] = D.noval,
    nosave: Annotated[bool, Option("--nosave", help="Write checkpoints after the last epoch only.")] = D.nosave,
    noautoanchor: Annotated[
        bool, Option("--noautoanchor", help="Leave anchors as they are, even where they match few boxes.")
    ] = D.noautoanchor,
    noplots: Annotated[bool, Option("--noplots", help="Draw nothing.")] = D.noplots,
    cache: Annotated[str, Option(metavar="[ram|disk]", help="Keep decoded images in memory or on disk.")] = D.cache,
    image_weights: Annotated[
        bool, Option("--image-weights", help="Show images of badly found classes more often.")
    ] = D.image_weights,
    device: Annotated[
        str, Option(help="cpu, a GPU's number, or mps; several (0,1,2,3) train together; left out: the first GPU.")
    ] = D.device,
    multi_scale: Annotated[
        bool, Option("--multi-scale", help="Vary the image size from 0.5 to 1.5 of --img.")
    ] = D.multi_scale,
    sync_bn: Annotated[
        bool, Option("--sync-bn", help="On several devices: batch norm over the whole batch, not each one's part.")
    ] = D.sync_bn,
    single_cls: SingleCls = D.single_cls,
    optimizer: Annotated[str, Option(help="SGD, Adam or AdamW.")] = D.optimizer,
    loss: Annotated[
        str, Option(metavar="[anchor|ota]", help="Matching of targets: by anchor sides, or by optimal transport.")
    ] = D.loss,
    workers: Workers = D.workers,
    project: Project = D.project,
    name: Name = D.name,
    exist_ok: ExistOk = D.exist_ok,
    cos_lr: Annotated[bool, Option("--cos-lr", help="Cosine instead of linear decay of the learning rate.")] = D.cos_lr,
    label_smoothing: Annotated[float, Option(help="Share of doubt in class targets.")] = D.label_smoothing,
    patience: Annotated[int, Option(help="Stop after this many epochs without a better one; 0: never.")] = D.patience,
    freeze: Annotated[
        Numbers,
        Option(parser=parse_numbers, metavar="INT …", help="Leave layers untrained: the first N, or those listed."),
    ] = FREEZE,
    save_period: Annotated[int, Option(help="Keep a checkpoint every N epochs; -1: none.")] = D.save_period,
    save_every: Annotated[
        int, Option(help="Save the state to continue from every N batches; 0: at the end of epochs.")
    ] = D.save_every,
    save_minutes: Annotated[float, Option(help="Save it at least this often, too; 0: no such rule.")] = D.save_minutes,
    nan_policy: Annotated[
        str, Option(metavar="[stop|skip]", help="What to do with a batch whose loss is not finite.")
    ] = D.nan_policy,
    seed: Annotated[int, Option(help="Seed of everything random.")] = D.seed,
    strict: Strict = D.strict,
) -> None:
    """Train a detector on a folder of images and YOLO txt labels."""
    options = locals()  # one parameter per field of the config, which a test checks
    job = ElasticJob.of_environment()
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
    from yolo_cli.commands.train import run
    from yolo_cli.distributed.launch import launch, wants_launch
    from yolo_cli.train.signals import StoppedError

    try:
        if wants_launch(config):
            raise typer.Exit(launch(config, given_arguments()))
        run(config, Terminal(), given=given_options())
    except StoppedError as stopped:
        sys.exit(stopped.status)  # the training has reported why it stopped
