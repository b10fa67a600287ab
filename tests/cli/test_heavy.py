"""Importing without the garbage collector, and having it back afterwards."""

import subprocess
import sys


def test_a_command_leaves_the_collector_at_work() -> None:
    code = """
import gc, sys
from yolo_cli.cli.app import main
try:
    main(["detect", "--source", "nowhere.jpg", "--device", "cpu"])
except SystemExit as ended:
    assert ended.code == 2
assert "torch" in sys.modules
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000  # torch's objects, which it need not look at
"""
    subprocess.run([sys.executable, "-c", code], check=True)
