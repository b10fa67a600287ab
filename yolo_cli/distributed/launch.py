"""`yolo train --device 0,1`: one process a device, started and watched by torch's elastic launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch.distributed.elastic.multiprocessing.errors as elastic_errors
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from yolo_cli.config import AUTO_BATCH, TrainConfig
from yolo_cli.device import cores, device_names, select_device
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.distributed.world import World, per_rank_batch
from yolo_cli.errors import UserError
from yolo_cli.train.setup import check_model_files
from yolo_cli.train.signals import StoppedError

MAX_RESTARTS = 3
GRACE = 300  # seconds that processes have to end their batch and save, before they are killed


def wants_launch(config: TrainConfig) -> bool:
    """Whether several devices are asked for, and no launcher has started this process."""
    return "," in config.device and "RANK" not in os.environ


def launch(config: TrainConfig, arguments: Sequence[str]) -> int:
    """Run `yolo` with `arguments` once for each device; returns the exit status.

    Raises UserError where the options or devices make no sense, and StoppedError where a signal ended the training.
    """
    check_model_files(config)
    names = device_names(config.device)
    for name in names:
        select_device(name)
    if not config.resume and config.batch != AUTO_BATCH:
        per_rank_batch(config.batch, World(size=len(names)))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // len(names), 1)))
    logging.disable(logging.CRITICAL)  # the processes speak for themselves
    job = ElasticJob(uuid.uuid4().hex)
    start = elastic_launch(
        LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(names),
            run_id=job.key,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=MAX_RESTARTS,
            shutdown_timeout=GRACE,
        ),
        sys.executable,
    )
    try:
        start("-m", "yolo_cli", *arguments)
    except elastic_errors.ChildFailedError as failed:
        statuses = [each.exitcode for each in failed.failures.values()]
        if 2 in statuses:  # one has said what the user can mend
            return 2
        killed = {rank: -each.exitcode for rank, each in failed.failures.items() if each.exitcode < 0}
        if not killed:
            return statuses[0]
        rank, number = next(iter(killed.items()))
        name = signal.Signals(number).name
        begun = job.folder(config.project)
        fix = "see to the cause (SIGKILL: often lack of memory)"
        fix += f", then go on with yolo train --resume {begun} --device {config.device}" if begun else ""
        raise UserError(f"process {rank} was ended by {name}, {MAX_RESTARTS + 1} times in all", fix=fix) from None
    except SignalException as caught:
        raise StoppedError(int(caught.sigval)) from None
    return 0
