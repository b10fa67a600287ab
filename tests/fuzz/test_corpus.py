"""Earlier findings and mutated valid files: each is read, or refused with one line."""

import subprocess
import sys
from pathlib import Path
from random import Random

import fuzz_mutation
import fuzz_seeds
import pytest
from fuzz_limits import address_space, limited_memory, limited_time
from fuzz_targets import TARGETS, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30  # of processor time per input: far more than any input takes
CASES = [(name, path) for name in TARGETS for path in fuzz_seeds.found_cases(name)]


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YOLO_DATASETS", raising=False)


def read(name: str, data: bytes, folder: Path) -> str:
    target, before = TARGETS[name], address_space()
    with limited_time(SECONDS), limited_memory(target.memory):
        said = outcome(target, data, folder)
    assert address_space() - before <= target.memory * 1024
    return said


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}: {path.stem}" for name, path in CASES])
def test_earlier_findings_stay_fixed(name: str, path: Path, tmp_path: Path) -> None:
    read(name, path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    assert "read" in {read(name, data, tmp_path) for data in fuzz_seeds.valid(name)}


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_mutated_files_are_read_or_refused(name: str, tmp_path: Path, data: st.DataObject, seed: int) -> None:
    seeds = fuzz_seeds.crafted(name)
    chosen = data.draw(st.integers(0, len(seeds) - 1))
    read(name, fuzz_mutation.mutate(name, seeds[chosen], seeds, Random(seed)), tmp_path)


@pytest.mark.slow
def test_the_script_runs_and_counts(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks/fuzz.py", "--target", "labels", "--minutes", "0.03", "--no-atheris"]
    done = subprocess.run([*command, "--crashes", tmp_path], capture_output=True, text=True, check=True, cwd=tmp_path)
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].split("|")]
    assert row[1] == "labels"
    assert row[-2] == "0"
