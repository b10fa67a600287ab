"""Each text of torch that yolo_cli.torch_errors recognizes is provoked: a version that changes one fails here."""

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from yolo_cli.torch_errors import dead_worker, is_connection_error, is_out_of_memory, is_timeout


class Dying(Dataset[int]):
    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if self.number:
            os.kill(os.getpid(), self.number)
        os._exit(3)


def test_the_allocator_of_the_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


# A convolution in an address space with less and less room. Its tensors have more than the 32 MB below which malloc may
# use memory that the process has reserved already.
CONVOLUTION = """
import resource
import torch
from yolo_cli.torch_errors import is_out_of_memory

torch.set_num_threads(1)
convolution = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
convolution(torch.rand(1, 64, 16, 16)).sum().backward()
pages = int(open("/proc/self/statm").read().split()[0])
images = torch.rand(9, 64, 128, 128)
for megabytes in range(128, 0, -8):
    limit = pages * resource.getpagesize() + images.nbytes + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        convolution(images).sum().backward()
    except RuntimeError as error:
        assert is_out_of_memory(error), error
        print("recognized")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
def test_a_convolution_is_out_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CONVOLUTION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "recognized" in done.stdout


def test_another_error_is_not_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(caught.value)
    assert not dead_worker(caught.value)
    assert not is_connection_error(caught.value)


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "is killed by signal: Killed"), (0, "exited unexpectedly")]
)
def test_a_worker_that_dies(number: int, how: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Dying(number), num_workers=1))
    # Which of the two torch reports for a signal depends on where it notices.
    assert dead_worker(caught.value) in {how, "exited unexpectedly"}


# Rank 1 joins the group of rank 0, and then ends or waits.
PEER = """
import os, sys, time
from datetime import timedelta
import torch.distributed as dist
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), 2, False)
dist.init_process_group("gloo", store=store, rank=1, world_size=2, timeout=timedelta(seconds=60))
dist.new_group(timeout=timedelta(seconds=3))
if sys.argv[2] == "silent":
    time.sleep(60)
os._exit(0)
"""


@pytest.mark.parametrize("peer", ["gone", pytest.param("silent", marks=pytest.mark.slow)])
def test_another_process_that_is_gone_or_silent(peer: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    store = dist.TCPStore("127.0.0.1", port, 2, True, wait_for_workers=False)
    other = subprocess.Popen([sys.executable, "-c", PEER, str(port), peer], stderr=subprocess.DEVNULL)
    try:
        dist.init_process_group("gloo", store=store, rank=0, world_size=2, timeout=timedelta(seconds=60))
        group = dist.new_group(timeout=timedelta(seconds=3))
        if peer == "gone":
            other.wait(60)
        with pytest.raises(RuntimeError) as caught:
            dist.all_reduce(torch.ones(1), group=group)
    finally:
        other.kill()
        other.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
    assert is_connection_error(caught.value), caught.value
    assert is_timeout(caught.value) == (peer == "silent")
