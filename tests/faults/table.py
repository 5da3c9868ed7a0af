"""tests/FAULTS.md: what the damage suite tried and what became of it, from the properties that its tests record."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from tests.kinds import KINDS

SECTIONS = {
    "tests/faults/test_kills.py": "Kills, stage by stage",
    "tests/faults/test_kills_dvc.py": "Kills and damage under DVC",
    "tests/faults/test_machine.py": "What a machine can do",
    "tests/faults/test_divergence.py": "Divergence",
    "": "Bad input",
}
NOT_COVERED = """\
- A machine that loses power: what the disk had not written yet is found by its hash and done again, but no test pulls
  a plug. File systems without `flock` or without an atomic rename are not tried.
- Several GPUs, and a GPU that fails in the middle of a pass. All of this was run on a CPU.
- Files that are changed on purpose together with their hashes. Hashes find accidents, not attackers with write access.
- `dvc exp run` itself, killed within the moment (a twentieth of a second here) in which DVC 3.67 keeps uncommitted
  changes in a git stash: they are in `refs/stash` then, and HEAD may be detached. `tools.runs` works in a clone and is
  not concerned. docs/RUNNING.md, "After a kill", says how to mend it.
- A `dvc` that is killed alone while its stage goes on: a second start waits for that stage and takes its work over, but
  no test does so.
"""


def table(reports: Sequence[Any], seconds: float) -> str:
    """The whole document; `reports` are pytest's, of the tests that ran."""
    rows = sorted((row for report in reports for row in _rows(report)), key=lambda row: list(SECTIONS).index(row[0]))
    kills = sum(row[3] for row in rows)
    failed = sum(not row[4] for row in rows)
    text = [
        "# What was tried, and what became of it",
        "",
        f"Written by `make test-faults`: {len(rows)} kinds of damage, {kills} kills, {failed} not survived, in "
        f"{seconds / 60:.0f} min on {os.cpu_count()} CPU cores ({platform.system()}, Python "
        f"{platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}, DVC "
        f"{version('dvc')}). A kill is SIGKILL; bytes are those of all outputs, but for what a stage cost.",
    ]
    for key, title in SECTIONS.items():
        own = [row for row in rows if row[0] == key]
        if own:
            text += ["", f"## {title}", "", "| tried | what became of it |", "|---|---|"]
            text += [f"| {_cell(tried)} | {_cell(outcome)} |" for _, tried, outcome, _, _ in own]
    text += ["", "## Kinds of fault that people met, and the tests that hold each (most run in `make test`)", ""]
    text += ["| what holds | tests |", "|---|---|"]
    text += [f"| {_cell(kind)} | {_by_file(tests)} |" for kind, tests in KINDS.items()]
    return "\n".join([*text, "", "## Not covered", "", NOT_COVERED])


def _by_file(tests: Sequence[str]) -> str:
    """`tests/test_git.py: test_one, test_two; ...`."""
    found: dict[str, list[str]] = {}
    for path, _, name in (test.partition("::") for test in tests):
        found.setdefault(path, []).append(name)
    return "; ".join(f"`{path}`: {', '.join(names)}" for path, names in found.items())


def _rows(report: Any) -> list[tuple[str, str, str, int, bool]]:
    """(section, tried, outcome, kills, survived) of one test; a failed test may not have come to its outcome."""
    found = dict(report.user_properties)
    if report.passed and "tried" not in found:
        return []
    file = report.nodeid.partition("::")[0]
    tried = found.get("tried", report.nodeid)
    outcome = found.get("outcome", "") if report.passed else f"NOT SURVIVED ({report.outcome})"
    return [(file if file in SECTIONS else "", tried, outcome, found.get("kills", 0), report.passed)]


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table, whatever is in it."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
