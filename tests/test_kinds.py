"""tests/FAULTS.md names, for each kind of fault, tests that there are."""

import ast

import pytest

from tests.conftest import ROOT
from tests.faults.table import table
from tests.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_test_that_is_named_is_there(kind):
    assert KINDS[kind]
    for name in KINDS[kind]:
        path, _, function = name.partition("::")
        defined = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert function in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, name


def test_the_table_names_every_kind_and_its_tests():
    text = table([], 60)
    for kind, tests in KINDS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {kind} |")]
        for path, _, function in (name.partition("::") for name in tests):
            assert path in line
            assert function in line
