"""The table of docs/exactness.md names tests that there are."""

import ast
import re

import pytest

from tests.launch import ROOT

ROWS = [line for line in (ROOT / "docs" / "exactness.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_line_names_its_test(row):
    named = re.findall(r"`(tests/[\w/]+\.py)?((?:::)\w+)?`", row)
    file = ""
    found = 0
    for path, name in named:
        if not path and not name:
            continue
        file = path or file
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name.removeprefix("::") in functions, f"{file} has no {name}"
        found += 1
    assert found, "no test is named"
