"""The garbage collector is off during heavy imports, and on afterwards."""

import subprocess
import sys


def test_the_collector_is_on_after_the_imports() -> None:
    code = """
import gc, sys
from yolo_cli.cli.app import main
try:
    main(["detect", "--source", "nowhere.jpg", "--device", "cpu"])
except SystemExit as ended:
    assert ended.code == 2
assert "torch" in sys.modules
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000  # torch's objects are excluded from collection
"""
    subprocess.run([sys.executable, "-c", code], check=True)
