"""What the damage suite shares: stages in forks that can be killed, and the small pipeline that is damaged."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

# two kill tests at once on two cores; and the number of threads is part of what decides the bits
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Ended:
    """What became of a stage: exit code (negative: by that signal), its seconds, file events and stderr."""

    code: int
    seconds: float
    events: int
    stderr: str


@dataclass(frozen=True)
class Stages:
    """Runs stages in forks of one process."""

    process: subprocess.Popen

    def run(
        self,
        folder: Path,
        stage: str,
        *arguments: str,
        before_event: int | None = None,
        after_seconds: float | None = None,
    ) -> Ended:
        """Run a stage in a folder; kill it before its n-th file event, or after so many seconds."""
        order: dict[str, Any] = {"folder": str(folder), "stage": stage, "arguments": arguments}
        order |= {"before_event": before_event, "after_seconds": after_seconds}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    command = [sys.executable, "-m", "tests.faults.server"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ONE_THREAD, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert json.loads(process.stdout.readline()) == "ready"
    yield Stages(process)
    process.stdin.close()
    assert process.wait() == 0
