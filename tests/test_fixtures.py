"""The shipped part of the reference data is small, and equal to what it was made from."""

from pathlib import Path

import numpy as np
from fixtures.make import SHIPPED, make

MAX_BYTES = 2_000_000


def shipped_data() -> list[Path]:
    """Paths relative to the folder of fixtures."""
    files = [file for name in ("reference", "weights") for file in (SHIPPED / name).rglob("*") if file.is_file()]
    return sorted(file.relative_to(SHIPPED) for file in files)


def test_the_shipped_part_is_small() -> None:
    assert sum((SHIPPED / file).stat().st_size for file in shipped_data()) <= MAX_BYTES


def test_the_shipped_part_is_what_the_script_makes(reference: Path, tmp_path: Path) -> None:
    make(reference, tmp_path)
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()) == shipped_data()
    for file in shipped_data():
        if file.suffix == ".npz":  # the compression may differ between versions of zlib
            made, stored = np.load(tmp_path / file), np.load(SHIPPED / file)
            assert made.files == stored.files
            for name in made.files:
                np.testing.assert_array_equal(made[name], stored[name])
        else:
            assert (tmp_path / file).read_bytes() == (SHIPPED / file).read_bytes(), file
