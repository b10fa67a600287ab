"""What every test may use: the reference data, and a cache folder of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# The same examples every time, so that a failure is a change's own; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data; tests that need it skip where YOLO_REFERENCE_DIR is unset."""
    folder = os.environ.get("YOLO_REFERENCE_DIR")
    if not folder:
        pytest.skip("YOLO_REFERENCE_DIR is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test caches reaches the user's cache folder, nor another test."""
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Annotated shapes are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
