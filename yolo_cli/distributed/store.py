"""The store through which the processes of a job connect."""

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist

_ADDRESS = "yolo/address"
_PATIENCE = 600.0  # seconds to wait for the main process


def connect_store(rank: int) -> dist.Store:
    """A store that is shared by the processes of this start of the job, and not by those of an earlier start.

    The store of torch's elastic launcher outlives a restart and still holds the addresses of the former processes.
    Connecting to those fails or never returns. So the main process opens a store of its own and publishes its port in
    the launcher's store. A port of an earlier start is recognized because no process listens there. Raises
    torch.distributed.DistError if the main process is not found.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    size = int(os.environ["WORLD_SIZE"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # the launcher has no store: rank 0 opens it
        return dist.TCPStore(host, port, size, rank == 0, wait_for_workers=False)
    launcher = dist.TCPStore(host, port, size, False)
    if rank == 0:
        own = dist.TCPStore(host, 0, size, True, wait_for_workers=False)
        launcher.set(_ADDRESS, str(own.port))
        return own
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        number = int(launcher.get(_ADDRESS))
        if _is_listening(host, number):
            return dist.TCPStore(host, number, size, False, timeout=timedelta(seconds=60))
        time.sleep(0.2)
    raise dist.DistNetworkError("the main process was not found")


def _is_listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
