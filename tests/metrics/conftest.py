import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    folder = os.environ.get("YOLO_REFERENCE_DIR")
    if not folder:
        pytest.skip("YOLO_REFERENCE_DIR is not set")
    return Path(folder)
