"""Waiting OpenMP threads soon sleep, unless the user wants something else."""

import os
import subprocess
import sys

import pytest

CODE = """
import os
from yolo_cli.cli.app import main
try:
    main(["--version"])
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_the_command_limits_how_long_waiting_threads_spin(given: dict[str, str], expected: str) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", CODE], env=env | given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == expected
