"""The house rules that a reader can count."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "yolo_cli").rglob("*.py"))
MAX_LINES = 400
MAX_STATEMENTS = 40


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            statements = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
            assert statements <= MAX_STATEMENTS, f"{node.name} has {statements} statements"


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [p for p in FILES if re.search(r"util|helper|misc|common", p.stem)]


def test_nothing_in_a_file_can_decide_what_runs() -> None:
    calls = re.compile(r"(?<![\w.])(eval|exec)\(|weights_only=False|pickle\.loads?\(|os\.system\(|shell=True")
    assert not [str(p) for p in FILES if calls.search(p.read_text(encoding="utf-8"))]
