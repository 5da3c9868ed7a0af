"""How every command starts and ends, seen from outside."""

import ast
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ASCII = {**os.environ, "PYTHONIOENCODING": "ascii"}
ONLY_ASCII = ("tools/embedded/word_problems.py",)  # prints names of files, and returns its exit code to a test


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["tools.annotate", "--help"], "the filled-in sheet ? data/annotations"),
        (["stages.prepare", "--help"], "a source of data ? data/prepared"),
        (["bench.paper_cost"], "| run01 | 7B"),
    ],
)
def test_a_terminal_that_lacks_a_character_is_shown_another(command, said):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=ASCII, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert done.stdout.isascii()


def test_every_command_starts_and_ends_by_way_of_run():
    """Which has the terminal's encoding, the exit codes and what is shown of an error."""
    commands = {}
    for folder in ("stages", "tools", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            last = ast.parse(path.read_text(encoding="utf-8")).body[-1:]
            if last and isinstance(last[0], ast.If) and "__main__" in ast.unparse(last[0].test):
                last = last[0].body
            elif path.name != "__main__.py":
                continue
            commands[str(path.relative_to(ROOT))] = [ast.unparse(line) for line in last]
    assert len(commands) > 20
    assert {name for name, last in commands.items() if last != ["run(main)"]} == set(ONLY_ASCII)
