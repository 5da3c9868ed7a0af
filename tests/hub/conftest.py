"""A hub on loopback for a test, and processes that know no other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.lib.report.published import load_study
from tests.conftest import ONE_THREAD, ROOT
from tests.hub.contents import fill
from tests.hub.server import Hub, serving

PAPER = load_study(ROOT / "runs.yaml").profiles["paper"]
CHAT = PAPER["models"]["1.5B"]["model.name"], PAPER["models"]["1.5B"]["model.revision"]
GUARD = PAPER["overrides"]["judge.model"], PAPER["overrides"]["judge.revision"]


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Client:
    """Runs this Python in a folder, against a hub, with caches of its own that are empty at first."""

    folder: Path
    hub: Hub

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {name: value for name, value in ONE_THREAD.items() if not name.startswith(("HF_", "HUGGING"))}
        ours = {
            "HF_ENDPOINT": self.hub.address,
            "HF_HOME": str(self.folder / "hf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "AILUMINATE_URL": f"{self.hub.address}/raw",
            "NO_PROXY": "127.0.0.1,localhost",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        return {**kept, **ours, **changes}

    def run(self, *arguments: str, within: Path | None = None, limit: float = 300, **changes: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=within or self.folder,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=limit,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper profile's repositories, with the embedded data in GSM8K's and AILuminate's place and random models."""
    folder, data = tmp_path_factory.mktemp("hub"), ROOT / "data/embedded"
    fill(folder, data / "train.jsonl", data / "test.jsonl", data / "hazards.csv", steps=0)
    return folder


@pytest.fixture
def client(untrained: Path, tmp_path: Path) -> Iterator[Client]:
    with serving(untrained) as hub:
        yield Client(tmp_path, hub)
