"""Fixtures for all tests: the reference data, and a separate cache folder. Skipped tests are counted per reason."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

SHIPPED = Path(__file__).resolve().parent / "fixtures"
NO_REFERENCE = "YOLO_REFERENCE_DIR is not set, and this part of the reference data is not in the repository"

# The same examples in every run, so that only a change can make a test fail. HYPOTHESIS_PROFILE=default tries new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per reason for which tests were skipped, with their number."""
    reasons = Counter(reason for report in terminalreporter.getreports("skipped") if (reason := skip_reason(report)))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """pytest's text without its prefix; empty for an expected failure."""
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of all reference data. Tests that need it are skipped if YOLO_REFERENCE_DIR is not set."""
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
    """Each test has its own cache folder, apart from the user's."""
    monkeypatch.setenv("YOLO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switch off the check of annotated shapes."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
