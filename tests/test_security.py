"""Every row of the table in docs/security.md names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/security.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| input ")
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}: {row[1][:40]}" for row in ROWS])
def test_every_row_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 4
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert named or "**trusted**" in row[2]
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
