from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import darknet_weights


@pytest.fixture(scope="session")
def darknet_file(
    reference_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """Finds the `.cfg` and the weights of a network by name: the published weights, or deterministic ones."""
    folder = tmp_path_factory.mktemp("darknet")

    def find(name: str) -> tuple[Path, Path]:
        cfg = reference_file(f"weights/{name}.cfg")
        published = cfg.with_suffix(".weights")
        made = folder / published.name
        if not published.exists() and not made.exists():
            darknet_weights.write(cfg, made)
        return cfg, published if published.exists() else made

    return find
