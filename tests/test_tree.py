"""The rules of the source tree that can be counted."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "yolo_cli").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 400
COLLECTIVE_NAMES = re.compile(r"util|helper|misc|common|stuff")


@pytest.mark.parametrize("path", FILES + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_no_module_or_folder_has_a_collective_name() -> None:
    places = [part for path in FILES for part in path.relative_to(ROOT / "yolo_cli").with_suffix("").parts]
    assert not [part for part in places if COLLECTIVE_NAMES.search(part)]


def test_each_command_is_one_file_with_run() -> None:
    commands = {path.stem for path in (ROOT / "yolo_cli/commands").glob("*.py")} - {"__init__"}
    options = {path.stem for path in (ROOT / "yolo_cli/cli").glob("*.py")}
    for name in sorted(commands & options):
        assert re.search(r"^def run\(", (ROOT / f"yolo_cli/commands/{name}.py").read_text("utf-8"), re.MULTILINE), name


def test_tests_are_in_the_folder_of_what_they_test() -> None:
    packages = {path.name for path in (ROOT / "yolo_cli").iterdir() if (path / "__init__.py").exists()}
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in TESTS if path.parent != ROOT / "tests"}
    assert folders - {"fixtures", "fuzz", "gpu"} <= packages  # gpu: of all packages, on a GPU


def test_nothing_in_a_file_can_decide_what_runs() -> None:
    calls = re.compile(r"(?<![\w.])(eval|exec)\(|weights_only=False|pickle\.loads?\(|os\.system\(|shell=True")
    assert not [str(p) for p in FILES if calls.search(p.read_text(encoding="utf-8"))]
