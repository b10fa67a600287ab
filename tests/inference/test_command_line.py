"""The command as a process: standard output and error, exit status, signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.inference.conftest import RecordingReporter, mjpeg, probe, save_image, save_video, served
from yolo_cli.commands.detect import run as detect
from yolo_cli.config import DetectConfig

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(tiny: Path, *words: object) -> list[str]:
    given = ("--weights", tiny, "--img", 64, "--max-det", 2, "--device", "cpu", *words)
    return [sys.executable, "-m", "yolo_cli", "detect", *map(str, given)]


def test_standard_output_is_json_only(tiny: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.jpg")
    save_video(tmp_path / "in" / "v.mp4", 3)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"not an image")
    (tmp_path / "in" / "half.png").write_bytes(save_image(tmp_path / "in" / "b.png").read_bytes()[:60])
    words = command(tiny, "--source", tmp_path / "in", "--json", "--conf-thres", 0.1, "--classes", 0, 1, "--save-txt")
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [None, None, 1, 2, 3]
    assert "bad.jpg: skipped" in done.stderr
    assert "results in runs/exp" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "exp" / "v.mp4").is_file()


def test_a_closed_pipe_ends_the_run_quietly(tiny: Path, tmp_path: Path) -> None:
    save_video(tmp_path / "v.avi", 400, code="MJPG")
    words = command(tiny, "--source", tmp_path / "v.avi", "--json", "--nosave")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] == 1
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(60) == 141
    assert "Traceback" not in stderr


def test_no_reader_outlives_a_failed_run(tiny: Path, tmp_path: Path) -> None:
    save_video(tmp_path / "v.avi", 400, code="MJPG")

    def closed(line: str) -> None:
        raise BrokenPipeError

    config = DetectConfig(
        source=str(tmp_path / "v.avi"), weights=str(tiny), img=(64, 64), device="cpu", nosave=True, json=True
    )
    with pytest.raises(BrokenPipeError):
        detect(config, RecordingReporter(), closed)
    # One that still releases its video when Python ends aborts the process, in about one of ten runs.
    assert not [thread.name for thread in threading.enumerate() if thread.name == "read files"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_paths_that_are_not_valid_utf8(tiny: Path, tmp_path: Path) -> None:
    path = save_image(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most languages' locales
    for flags in ((), ("--json",)):
        done = subprocess.run(
            command(tiny, "--source", "-", "--nosave", *flags),
            input=os.fsencode(path) + b"\n",
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_is_reported(tiny: Path, tmp_path: Path) -> None:
    import resource

    save_video(tmp_path / "v.avi", 40, size=(240, 320), code="MJPG")
    done = subprocess.run(
        command(tiny, "--source", tmp_path / "v.avi"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )
    assert done.returncode == 2
    assert "could not be completed; is the disk full?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"]
)
def test_signals_stop_a_stream_and_leave_complete_files(tiny: Path, tmp_path: Path, how: signal.Signals) -> None:
    wanted = ("--save-txt", "--save-csv", "--save-json", "--json")
    with served(mjpeg(100_000, 0.05)) as address:
        words = command(tiny, "--source", f"{address}/cam", *wanted)
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20)]
            stopped = time.monotonic()
            for _ in range(3):  # as an impatient user does
                process.send_signal(how)
                time.sleep(0.01)
            rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert time.monotonic() - stopped < 15
    assert stderr.count("interrupted") == 1
    assert "Traceback" not in stderr
    numbers = [json.loads(line)["frame"] for line in [*lines, *rest.splitlines()]]
    assert numbers == sorted(set(numbers))
    folder = tmp_path / "runs" / "exp"
    (made,) = folder.glob("*.mp4")
    assert probe(made)[0] >= len(numbers) - 3  # frames that arrive within one frame time share one
    assert len(list((folder / "labels").iterdir())) == len(numbers)
    assert len(json.loads((folder / "predictions.json").read_text())) == 2 * len(numbers)
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + 2 * len(numbers)


MEMORY = """
import resource, sys, threading, time
from yolo_cli.cli.app import main

def watch():
    page = resource.getpagesize()
    while True:
        with open("/proc/self/statm") as file:
            marks.append((time.monotonic(), int(file.read().split()[1]) * page / 2**20))
        time.sleep(0.05)

marks = []
threading.Thread(target=watch, daemon=True).start()
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
quarter = len(marks) // 4
print(max(m for _, m in marks[-2 * quarter : -quarter]), max(m for _, m in marks[-quarter:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_stays_flat_over_a_video(tiny: Path, tmp_path: Path) -> None:
    """benchmarks/detect.py measures the same over 5,000 frames. A frame has 0.9 MB, so 900 have 830 MB."""
    save_video(tmp_path / "v.avi", 900, size=(480, 640), code="MJPG")
    words = command(tiny, "--source", tmp_path / "v.avi", "--save-txt")[3:]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.splitlines()[-1].split())
    assert after - before < 30
    assert after < 1200
    assert probe(tmp_path / "runs" / "exp" / "v.mp4")[0] == 900
