"""Tests on a CUDA GPU: `make test-gpu`. Elsewhere they are skipped."""

from pathlib import Path

import pytest
import torch

from tests.train.conftest import small

__all__ = ["small"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
