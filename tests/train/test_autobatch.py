"""The batch size that fits into memory, measured or suggested."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.commands.train import run as train
from yolo_cli.config import TrainConfig
from yolo_cli.dataset.sampler import multi_scale_size
from yolo_cli.errors import UserError
from yolo_cli.progress import Silent
from yolo_cli.train.autobatch import available_memory, extrapolate_batch
from yolo_cli.train.setup import largest_img

# The address space is limited to that of a process that has imported everything, plus 2 GiB.
BOUNDED = """
import resource, sys
import torch
import yolo_cli.commands.train
from yolo_cli.cli.app import main

torch.set_num_threads(1)
torch.nn.Conv2d(3, 8, 3)(torch.rand(8, 3, 64, 64)).sum().backward()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from /proc")
def test_running_out_of_memory_suggests_a_batch_size_that_fits(small: Path, tmp_path: Path) -> None:
    words = "train --cfg n --img 640 --batch 24 --epochs 1 --workers 0 --noplots --noautoanchor --device cpu"
    command = [sys.executable, "-c", BOUNDED, *words.split(), "--data", str(small), "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: cpu: out of memory; --batch ")
    fitting = int(last.split("--batch ")[1].split()[0])
    assert 1 <= fitting < 24
    command[command.index("24")] = str(fitting)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_batch_minus_one_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch -1: is measured on a GPU only"):
        train(TrainConfig(data="shapes", cfg="n", batch=-1, project=str(tmp_path), device="cpu"), Silent())
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 1000), st.integers(0, 10**9), st.integers(10**6, 10**8))
def test_extrapolation_finds_the_largest_batch_that_fits(expected: int, start: int, each: int) -> None:
    peaks = [(n, float(start + n * each)) for n in (2, 4, 8, 16)]
    assert extrapolate_batch(peaks, start + (expected + 0.5) * each) == expected
    assert extrapolate_batch(peaks, start / 2) == 0


def test_a_single_measurement_is_not_extrapolated() -> None:
    assert extrapolate_batch([(2, 100.0)], 150.0) == 2
    assert extrapolate_batch([(2, 100.0)], 50.0) == 0
    assert extrapolate_batch([], 50.0) == 0


@pytest.mark.parametrize("img", [(640, 640), (64, 96)])
def test_the_measured_image_size_is_the_largest_of_multi_scale(img: tuple[int, int]) -> None:
    largest = largest_img(TrainConfig(multi_scale=True), img, 32)
    sizes = [multi_scale_size(0, 0, step, img, 32) for step in range(500)]
    assert (max(h for h, _ in sizes), max(w for _, w in sizes)) == largest
    assert largest_img(TrainConfig(), img, 32) == img


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures the memory of a GPU")
def test_memory_of_other_processes_is_not_available() -> None:
    device = torch.device("cuda:0")
    before = available_memory(device)
    gigabyte = "import torch; x = torch.empty(2**30, dtype=torch.uint8, device='cuda:0'); print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", gigabyte], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    other.stdout.readline()
    mine = torch.empty(2**30, dtype=torch.uint8, device=device)
    try:
        assert before - available_memory(device) == pytest.approx(2**30, rel=0.8)  # the gigabyte and a context
    finally:
        other.communicate("\n")
        del mine
