"""A Slurm controller and two nodes on this machine, from Debian's packages, in a folder of their own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, Repository

NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
JobRequeue=1
KillWait=5
SlurmdTimeout=10
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=both Nodes=n1,n2 Default=YES State=UP
PartitionName=one Nodes=n1 State=UP
"""


@dataclass
class Cluster:
    """The daemons, by name (munged, slurmctld, n1, n2), all children of this process."""

    folder: Path
    daemons: dict[str, subprocess.Popen]
    queued_again: set[str] = field(default_factory=set)

    def start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name)

    def processes(self, node: str) -> list[psutil.Process]:
        """Everything that runs on a node: its slurmd, the steps' slurmstepd, and what jobs started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("SLURMD_NODENAME") == node:
                    found.append(process)
                    found += [each for each in process.parents() if each.name().startswith("slurmstepd")]
        return [psutil.Process(self.daemons[node].pid), *dict.fromkeys(found)]

    def kill_node(self, node: str) -> None:
        """As if its power failed."""
        for process in self.processes(node):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.daemons[node].wait()

    def states(self) -> dict[str, str]:
        """What Slurm says of each node."""
        shown = slurm("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split() for line in shown.splitlines())

    def start_requeued(self) -> None:
        """What Slurm would start two minutes after it was queued again, once it is seen for the second time: a node
        that has just given a job back refuses to start it within the same second ("Job credential revoked")."""
        lines = slurm("squeue", "--noheader", "--array", "--format=%i %r").splitlines()
        waiting = {job for job, reason in (line.split(maxsplit=1) for line in lines) if reason == "BeginTime"}
        for job in waiting & self.queued_again:
            slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
        self.queued_again = waiting - self.queued_again

    def wait_until_idle(self) -> None:
        for _ in range(600):
            if self.states() == dict.fromkeys(NODES, "idle"):
                return
            time.sleep(0.1)
        raise AssertionError(f"after a minute, the nodes are {self.states()}")


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not shutil.which("slurmctld") or not shutil.which("munged"):
        pytest.skip("no Slurm on this machine; `make test-cluster` installs Debian's slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for each in (first, second, third):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (first, second, third)]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=ports))
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    here = Cluster(folder, {})
    files = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    here.start("munged", "munged", "--foreground", "--force", f"--key-file={folder}/munge.key", *files)
    time.sleep(1)
    here.start("slurmctld", "slurmctld", "-D")
    for node in NODES:
        here.start_node(node)
    here.wait_until_idle()
    yield here
    for node in NODES:
        here.kill_node(node)
    for name in ("slurmctld", "munged"):
        here.daemons[name].terminate()
        here.daemons[name].wait()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster-log", type=Path, help="write what happened to the runs to this file")


@pytest.fixture(scope="session")
def chronicle(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines of Markdown that tests add, written to --cluster-log in the end."""
    lines = [
        "# Four runs over two nodes",
        "",
        "Written by `make test-cluster` itself: a real Slurm (Debian's) with two nodes of one processor each, on one "
        f"machine with {os.cpu_count()} cores.",
    ]
    yield lines
    path = request.config.getoption("--cluster-log")
    if path and not request.session.testsfailed:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Checkout(Repository):
    """A clone of this repository, from which runs are submitted."""

    def runs(self, *arguments: str) -> str:
        return self.run("python", "-m", "tools.runs", *arguments)

    def states(self) -> dict[str, tuple[str, str]]:
        """What `status` shows: (state, detail) of each run."""
        lines = self.runs("status").splitlines()[2:]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {run: (state, detail) for run, state, detail in cells}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes clones of this repository's HEAD without its results, with some texts of runs.yaml replaced."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a node has one processor
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def make(name: str, replaced: dict[str, str] | None = None) -> Checkout:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / name)], check=True)
        made = Checkout(tmp_path / name)
        text = (made.folder / "runs.yaml").read_text()
        for old, new in (replaced or {}).items():
            assert old in text
            text = text.replace(old, new)
        (made.folder / "runs.yaml").write_text(text)
        made.run("git", "rm", "--quiet", "--ignore-unmatch", "metrics/runs/embedded/run*.json")
        message = ("--allow-empty", "--message", "As it was before any run")
        made.run("git", "commit", "--quiet", "--all", *message)
        return made

    return make
