"""Several processes train as one does. A failure of one is reported, and nothing hangs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from yolo_cli.device import device_names, rank_device
from yolo_cli.distributed.world import World, per_rank_batch, process_group
from yolo_cli.errors import UserError
from yolo_cli.evaluation.saved_evaluation import load_evaluation

STEP = Path(__file__).with_name("distributed_step.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
LIMIT = 240.0  # seconds, for everything that must not hang


def yolo(data: Path, project: Path, *more: str) -> list[str]:
    words = "--cfg n --hyp shapes --img 64 --batch 4 --workers 1 --noplots --noautoanchor --save-every 1"
    return [*["-m", "yolo_cli", "train", "--data"], str(data), *words.split(), "--project", str(project), *more]


def two_machines(name: str, port: int) -> list[str]:
    torchrun = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", name]
    return [*torchrun, "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def start(command: Sequence[str], log: Path) -> subprocess.Popen[str]:
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def epochs(folder: Path) -> list[str]:
    return [line.split(",")[0] for line in (folder / "results.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize("cfg", ["tiny.yaml", "tiny-tal.yaml"])
@pytest.mark.slow
def test_two_processes_give_the_gradients_statistics_and_metrics_of_one(small: Path, tmp_path: Path, cfg: str) -> None:
    """In double precision, where rounding cannot hide a mistake. The last of the batches of 10 has 4 images."""
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    single = run([sys.executable, str(STEP), str(small), str(one), "10", "own", cfg])
    assert single.returncode == 0, single.stderr
    processes = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    both = run([*processes, str(STEP), str(small), str(two), "10", "sync", cfg])
    assert both.returncode == 0, both.stderr
    a, b = torch.load(one), torch.load(two)
    assert a["losses"] == pytest.approx(b["losses"], rel=1e-12)
    assert a["scores"] == pytest.approx(b["scores"], abs=1e-9)
    assert a["scores"][-1] == 8
    for kind in ("gradients", "buffers"):
        for name, value in a[kind].items():
            torch.testing.assert_close(b[kind][name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.slow
def test_a_killed_process_is_restarted_from_the_last_checkpoint(small: Path, tmp_path: Path) -> None:
    log, run_folder = tmp_path / "log", tmp_path / "runs" / "exp"
    command = [sys.executable, *yolo(small, tmp_path / "runs", "--epochs", "4", "--device", "cpu,cpu")]
    process = start(command, log)
    wait_for(run_folder / "weights" / "last.pt", process, log)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    assert process.wait(LIMIT) == 0, log.read_text()
    assert "restart 1 of this job: continuing" in log.read_text()
    assert epochs(run_folder) == ["0", "1", "2", "3"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["exp"]
    assert not (run_folder / "weights" / "job").exists()


@pytest.mark.slow
def test_sigterm_saves_and_one_process_can_resume(small: Path, tmp_path: Path) -> None:
    log, run_folder = tmp_path / "log", tmp_path / "runs" / "exp"
    process = start([sys.executable, *yolo(small, tmp_path / "runs", "--epochs", "30", "--device", "cpu,cpu")], log)
    wait_for(run_folder / "weights" / "last.pt", process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 143, log.read_text()
    done = len(epochs(run_folder))
    assert f"Continue with: yolo train --resume {run_folder} --device cpu,cpu" in log.read_text()
    again = [*["-m", "yolo_cli", "train", "--resume"], str(run_folder), "--epochs", str(done + 1)]
    finished = run([sys.executable, *again])
    assert finished.returncode == 0, finished.stderr
    assert "the run used --device cpu,cpu" in finished.stderr
    assert len(epochs(run_folder)) == done + 1


@pytest.mark.slow
def test_two_machines_train_one_model(small: Path, tmp_path: Path) -> None:
    command = [
        *two_machines("two", free_port()),
        *yolo(small, tmp_path / "runs", "--epochs", "2", "--device", "cpu"),
    ]
    machines = [start(command, tmp_path / f"log{i}") for i in range(2)]
    logs = [(machine.wait(LIMIT), (tmp_path / f"log{i}").read_text()) for i, machine in enumerate(machines)]
    assert [status for status, _ in logs] == [0, 0], logs
    assert epochs(tmp_path / "runs" / "exp") == ["0", "1"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["exp"]
    assert sum("2 processes, 2 images each" in text for _, text in logs) == 1  # one of them prints
    saved = load_evaluation(tmp_path / "runs" / "exp")
    assert sorted(saved.position.tolist()) == list(range(len(saved.paths)))
    assert np.isfinite(saved.brightness).all()  # each measured its share of the images


@pytest.mark.slow
def test_the_replacement_of_a_lost_machine_joins(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch's launchers share a store that publishes its address only once: a new one waits in vain."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    quick = ["--max-restarts", "3", "--rdzv-conf", "keep_alive_interval=1,keep_alive_max_attempt=2"]
    torchrun = [*two_machines("lost", free_port()), *quick]
    command = [*torchrun, *yolo(small, tmp_path / "runs", "--epochs", "6", "--device", "cpu")]
    log, run_folder = tmp_path / "log", tmp_path / "runs" / "exp"
    first = start(command, log)
    time.sleep(2)  # so that the first one hosts the rendezvous
    second = start(command, tmp_path / "log1")
    wait_for(run_folder / "weights" / "last.pt", first, log)
    for lost in [*children(second.pid), second.pid]:
        os.kill(lost, signal.SIGKILL)
    second.wait(LIMIT)
    third = start(command, tmp_path / "log2")
    logs = [(machine.wait(LIMIT), path.read_text()) for machine, path in ((first, log), (third, tmp_path / "log2"))]
    assert [status for status, _ in logs] == [0, 0], logs
    assert epochs(run_folder) == [str(i) for i in range(6)]


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_job(small: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small.parent, data)
    log = tmp_path / "log"
    process = start([sys.executable, *yolo(data / "data.yaml", tmp_path / "runs", "--device", "cpu,cpu")], log)
    wait_for(tmp_path / "runs" / "exp" / "weights" / "last.pt", process, log)
    (data / "images" / "train" / "7.png").unlink()
    assert process.wait(LIMIT) == 2, log.read_text()
    errors = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "7.png" in errors[0]
    assert "Traceback" not in log.read_text()


SILENT = """
import datetime, sys
import yolo_cli.distributed.world
from yolo_cli.cli.app import main

yolo_cli.distributed.world.TIMEOUT = datetime.timedelta(seconds=5)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_does_not_answer_ends_the_job(small: Path, tmp_path: Path) -> None:
    script, log = tmp_path / "impatient.py", tmp_path / "log"
    script.write_text(SILENT)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", str(script)]
    process = start([*command, *yolo(small, tmp_path / "runs", "--device", "cpu")[2:]], log)
    wait_for(tmp_path / "runs" / "exp" / "weights" / "last.pt", process, log)
    stopped = children(process.pid)[1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        while "another process has not answered for 0:00:05" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert process.wait(LIMIT) == 1, log.read_text()


@pytest.mark.slow
def test_a_killed_loader_worker_is_reported_and_the_run_can_be_resumed(small: Path, tmp_path: Path) -> None:
    log, run_folder = tmp_path / "log", tmp_path / "runs" / "exp"
    process = start([sys.executable, *yolo(small, tmp_path / "runs", "--epochs", "30", "--device", "cpu")], log)
    wait_for(run_folder / "weights" / "last.pt", process, log)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(LIMIT) == 2, log.read_text()
    last = log.read_text().strip().splitlines()[-1]
    # Which of the two torch reports depends on where it notices.
    assert re.match("error: a worker that loads images (is killed by signal: Killed|exited unexpectedly); ", last)
    assert last.endswith(f"continue with yolo train --resume {run_folder}")
    done = len(epochs(run_folder))
    again = run([sys.executable, *["-m", "yolo_cli", "train", "--resume"], str(run_folder), "--epochs", str(done + 1)])
    assert again.returncode == 0, again.stderr
    assert len(epochs(run_folder)) == done + 1


@pytest.mark.slow
def test_a_user_error_is_printed_once(tmp_path: Path) -> None:
    done = run([sys.executable, *yolo(tmp_path / "none.yaml", tmp_path / "runs", "--device", "cpu,cpu")])
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert done.stderr.startswith(f"error: --data {tmp_path / 'none.yaml'}: ")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--nosuch"]])
def test_a_wrong_option_is_printed_once_under_torchrun(tmp_path: Path, wrong: list[str]) -> None:
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *yolo(tmp_path / "none.yaml", tmp_path, *wrong)]
    done = run(command)
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("error:") == 1
    assert wrong[0] in done.stderr


@pytest.mark.slow
def test_synchronized_batch_norm_needs_gpus(small: Path, tmp_path: Path) -> None:
    done = run([sys.executable, *yolo(small, tmp_path / "runs", "--sync-bn", "--device", "cpu,cpu")])
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --sync-bn --device cpu: synchronizes GPUs only; omit --sync-bn"


def test_the_process_selects_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --device 2,3 the first process must allocate nothing on GPU 0. No machine of ours has so many."""
    selected: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    with process_group(torch.device("cuda:2")) as world:
        assert world.size == 1
    assert selected == [torch.device("cuda:2")]


@pytest.mark.parametrize("request_", ["0,0", "cpu,0", "0,x", "0,", "mps,mps"])
def test_invalid_lists_of_devices(request_: str) -> None:
    with pytest.raises(UserError, match=f"--device {request_}"):
        device_names(request_)


def test_each_process_has_its_device() -> None:
    assert device_names("0,1, 3") == ["0", "1", "3"]
    assert rank_device("cpu,cpu", 1, 2) == torch.device("cpu")
    assert rank_device("cpu", 1, 2) == torch.device("cpu")
    with pytest.raises(UserError, match="2 devices for 3 processes"):
        rank_device("cpu,cpu", 0, 3)
    with pytest.raises(UserError, match="2 processes, one device"):
        rank_device("0", 0, 2)


def test_the_batch_size_must_be_a_multiple_of_the_number_of_processes() -> None:
    assert per_rank_batch(16, World(size=4)) == 4
    with pytest.raises(UserError, match="--batch 15: cannot be divided equally among 2 processes"):
        per_rank_batch(15, World(size=2))


@pytest.mark.slow
def test_a_run_that_is_still_running_cannot_be_resumed(small: Path, tmp_path: Path) -> None:
    log, run_folder = tmp_path / "log", tmp_path / "runs" / "exp"
    process = start([sys.executable, *yolo(small, tmp_path / "runs", "--epochs", "500", "--device", "cpu")], log)
    try:
        wait_for(run_folder / "weights" / "last.pt", process, log)
        resume = [sys.executable, "-m", "yolo_cli", "train", "--resume", str(run_folder)]
        second = run(resume)
        assert second.returncode == 2
        assert second.stderr.startswith(f"error: {run_folder}: process {process.pid} on ")
        process.kill()  # its workers live on for a while
        process.wait(LIMIT)
        done = len(epochs(run_folder))
        again = run([*resume, "--epochs", str(done + 2)])
        assert again.returncode == 0, again.stderr
    finally:
        process.kill()
    assert epochs(run_folder) == [str(i) for i in range(done + 2)]
