import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def formula(reference: Path) -> Any:
    sys.path.insert(0, str(reference / "reference"))
    import formula

    return formula


@pytest.fixture(scope="session")
def darknet_file(reference: Path, formula: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights of a network by name: the published ones, or those that the reference material's own writer makes."""
    import darknet_weights

    folder = tmp_path_factory.mktemp("darknet")

    def make(name: str) -> tuple[Path, Path]:
        cfg = reference / f"weights/{name}.cfg"
        published = cfg.with_suffix(".weights")
        made = folder / published.name
        if not published.exists() and not made.exists():
            darknet_weights.write(cfg, made)
        return cfg, published if published.exists() else made

    return make
