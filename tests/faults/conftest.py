"""What the damage suite shares: stages in forks that can be killed, and the small pipeline that is damaged."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ONE_THREAD, ROOT


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
        by: signal.Signals = signal.SIGKILL,
    ) -> Ended:
        """Run a stage in a folder; end it by a signal before its n-th file event, or after so many seconds."""
        order: dict[str, Any] = {"folder": str(folder), "stage": stage, "arguments": arguments}
        order |= {"before_event": before_event, "after_seconds": after_seconds, "by": by}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    @classmethod
    @contextmanager
    def start(
        cls, environment: Mapping[str, str], within: Sequence[str] = (), deny_network: bool = False
    ) -> Iterator["Stages"]:
        """The process, started by the command `within`; with the network denied, each attempt is said on stderr."""
        command = [*within, sys.executable, "-m", "tests.faults.server", *(["deny"] if deny_network else [])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, env={**ONE_THREAD, **environment}, **pipes)
        assert json.loads(process.stdout.readline()) == "ready"
        yield cls(process)
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    with Stages.start({}) as started:
        yield started


@pytest.fixture(scope="session")
def whole(stages: Stages, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small pipeline, run once without a break."""
    from tests.faults.test_kills import unbroken

    return unbroken(stages, tiny_models["qwen2"], tmp_path_factory.mktemp("whole"))
