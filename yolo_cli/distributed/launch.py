"""`yolo train --device 0,1`: one process per device, started and monitored by torch's elastic launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch.distributed.elastic.multiprocessing.errors as elastic_errors
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from yolo_cli.config import TrainConfig
from yolo_cli.device import cores, device_names
from yolo_cli.distributed.elastic import ElasticJob
from yolo_cli.errors import StoppedError, UserError

MAX_RESTARTS = 3
GRACE = 300  # seconds after a signal in which processes can finish their batch and save, before they are killed


def launch(config: TrainConfig, arguments: Sequence[str]) -> int:
    """Run `yolo` with `arguments` once per device of `config.device`; returns the exit status.

    Raises UserError if a process is killed more than MAX_RESTARTS times, and StoppedError if a signal ended the
    training.
    """
    names = device_names(config.device)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // len(names), 1)))
    logging.disable(logging.CRITICAL)  # the processes report their errors themselves
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
        if 2 in statuses:  # one process has printed a UserError
            return 2
        killed = {rank: -each.exitcode for rank, each in failed.failures.items() if each.exitcode < 0}
        if not killed:
            return statuses[0]
        rank, number = next(iter(killed.items()))
        name = signal.Signals(number).name
        run = job.unfinished_run(config.project)
        fix = "find the cause (for SIGKILL often lack of memory)"
        fix += f", then continue with: yolo train --resume {run} --device {config.device}" if run else ""
        raise UserError(f"process {rank} was killed by {name}, after {MAX_RESTARTS} restarts", fix=fix) from None
    except SignalException as caught:
        raise StoppedError(int(caught.sigval)) from None
    return 0
