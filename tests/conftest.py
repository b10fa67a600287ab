"""What every test may use: the reference data, and a cache folder of its own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

SHIPPED = Path(__file__).resolve().parent / "fixtures"
NO_REFERENCE = "YOLO_REFERENCE_DIR is not set, and this part of the reference data is not in the repository"

# The same examples every time, so that a failure is a change's own; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data; tests that need it skip where YOLO_REFERENCE_DIR is unset."""
    folder = os.environ.get("YOLO_REFERENCE_DIR")
    if not folder:
        pytest.skip(NO_REFERENCE)
    return Path(folder)


@pytest.fixture(scope="session")
def reference_file() -> Callable[[str], Path]:
    """Finds a file of reference data by its path: in the shipped part, else in YOLO_REFERENCE_DIR."""

    def find(path: str) -> Path:
        if (SHIPPED / path).exists():
            return SHIPPED / path
        if folder := os.environ.get("YOLO_REFERENCE_DIR"):
            return Path(folder) / path
        pytest.skip(NO_REFERENCE)

    return find


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
