"""What a machine can do to a stage: a full or read-only disk, no memory, lost bits, a clock that jumps, no network."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.lib.base.files import read_text
from stages.lib.train.checkpoints import by_step
from tests.conftest import ONE_THREAD, ROOT, write_params
from tests.faults.conftest import Stages
from tests.faults.test_kills import SMALL, as_dvc_would, checkpoints, content

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def namespaces(*kinds: str) -> list[str]:
    """The start of a command in Linux namespaces of its own; the test is skipped where that is not allowed."""
    command = ["unshare", "--map-root-user", *kinds]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this needs Linux and the right to make namespaces (unshare)")
    return command


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """A copy of the unbroken run, to be damaged."""
    folder = tmp_path / "damaged"
    shutil.copytree(whole.folder, folder)
    return folder


def stage_in(folder: Path, stage: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A stage as a process of its own, with other variables in its environment."""
    command = [sys.executable, "-m", f"stages.{stage}", *arguments]
    return subprocess.run(command, cwd=folder, env={**ONE_THREAD, **environment}, capture_output=True, text=True)


FULL = """
set -e
mount -t tmpfs -o size=64m none disk
cp -a whole/. disk
cd disk
free=$(df -k --output=avail . | tail -1)
head -c $(( (free - $2) * 1024 )) /dev/zero > filler
set +e
"$1" -m $3 2> ../stderr
echo $? > ../code
set -e
rm filler
"$1" -m $3
cd ..
rm -rf whole
cp -a disk whole
"""


@pytest.mark.parametrize(
    ("stage", "room"),
    [
        ("finetune", 300),
        ("finetune", 600),
        ("gen_math tuned", 8),
        ("judge tuned", 12),
        ("report", 60),
        ("prepare", 16),
    ],
)
def test_a_full_disk(whole, tmp_path, stage, room, record_property):
    name, *_ = stage.split()
    shutil.copytree(whole.folder, tmp_path / "whole")
    as_dvc_would(tmp_path / "whole", name)
    (tmp_path / "disk").mkdir()
    script = [*namespaces("--mount"), "bash", "-c", FULL, "bash", sys.executable, str(room), f"stages.{stage}"]
    done = subprocess.run(script, cwd=tmp_path, env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    message = (tmp_path / "stderr").read_text()
    assert (tmp_path / "code").read_text() == "1\n", message
    assert "Traceback" not in message
    assert "cannot be written" in message
    assert content(tmp_path / "whole", name) == content(whole.folder, name)
    record_property("tried", f"{stage}: the disk is full after {room} KiB more")
    record_property("outcome", f"exit code 1, “{message.splitlines()[-1][:90]}…”; with room again, the same bytes")


READ_ONLY = """
set -e
mkdir -p "$2"
mount --bind "$2" "$2"
mount -o remount,ro,bind "$2"
set +e
"$1" -m $3 2> ../stderr
echo $? > ../code
"""


@pytest.mark.parametrize(
    ("stage", "folder"),
    [
        ("prepare", "data"),
        ("finetune", "models"),
        ("gen_safety tuned", "data/generated"),
        ("judge tuned", "data/generated"),
        ("report", "metrics"),
    ],
)
def test_a_read_only_folder(whole, damaged, stage, folder, record_property):
    name, *arguments = stage.split()
    as_dvc_would(damaged, name)
    script = [*namespaces("--mount"), "bash", "-c", READ_ONLY, "bash", sys.executable, folder, f"stages.{stage}"]
    done = subprocess.run(script, cwd=damaged, env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    message = (damaged.parent / "stderr").read_text()
    assert (damaged.parent / "code").read_text() == "1\n", message
    assert "Traceback" not in message
    assert "Read-only file system" in message
    assert stage_in(damaged, name, *arguments).returncode == 0
    assert content(damaged, name) == content(whole.folder, name)
    record_property("tried", f"{stage}: {folder} is read-only")
    record_property("outcome", f"exit code 1, “{message.splitlines()[-1][:90]}…”; mended, the same bytes")


SCARCE = """
import resource, sys
from pathlib import Path
from stages.lib.model import models, sources
from stages.lib.train import training
from stages.lib.base.cli import run
from stages.lib.base.params import load_params
import torch
torch.set_num_threads(1)
params = load_params()
base = models.load_base(sources.find("./tiny", None), "none", "float32")
tuned = training.add_lora(base, params.lora, 1, "./tiny", None)
rows = [{"input_ids": list(range(3, 1900 + n)), "labels": list(range(3, 1900 + n))} for n in range(8)]
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, -1))
run(lambda: training.train(tuned, rows, params.finetune, False, Path("kept")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through Linux's RLIMIT_AS")
def test_too_little_memory_to_train(damaged, record_property):
    done = subprocess.run([sys.executable, "-c", SCARCE], cwd=damaged, env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "not enough memory for a pass of 2 rows" in done.stderr
    assert "finetune.batch_size lower and finetune.accumulation higher by as much" in done.stderr
    assert "Traceback" not in done.stderr
    record_property("tried", "finetune: an allocation fails (RLIMIT_AS)")
    record_property("outcome", f"exit code 1, “{done.stderr.splitlines()[-1][:90]}…”")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def halfway(stages: Stages, whole, folder: Path, *stage: str) -> None:
    """Run a stage and kill it late."""
    as_dvc_would(folder, stage[0])
    killed = stages.run(folder, *stage, before_event=round(0.6 * whole.ended[stage[0]].events))
    assert killed.code == -signal.SIGKILL


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["one bit flipped", "cut in half", "missing"])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_a_damaged_checkpoint(stages, whole, damaged, damage, file, record_property, request):
    halfway(stages, whole, damaged, "finetune")
    last, before = by_step(checkpoints(damaged))[:2]
    if not (last / "SHA256SUMS").exists():
        last, before = before, by_step(checkpoints(damaged))[2]
    damage(last / file)
    as_dvc_would(damaged, "finetune")
    again = stages.run(damaged, "finetune")
    assert again.code == 0, again.stderr
    assert f"{last.name}/{file} is" in again.stderr
    assert "this checkpoint is not used" in again.stderr
    assert f"going on from .ckpt/finetune/{before.parent.name}/{before.name}\n" in again.stderr
    assert content(damaged, "finetune") == content(whole.folder, "finetune")
    record_property("tried", f"the last checkpoint's {file}: {request.node.callspec.id.split('-')[-1]}")
    record_property("outcome", "named, not used; the checkpoint before it served, the same bytes")


@pytest.mark.parametrize("damage", [flip, cut], ids=["one bit flipped", "cut in half"])
@pytest.mark.parametrize("stage", ["gen_math", "gen_safety", "judge"])
def test_a_damaged_finished_batch(stages, whole, damaged, stage, damage, record_property, request):
    halfway(stages, whole, damaged, stage, "tuned")
    part = sorted((damaged / ".ckpt").rglob("*.json"))[0]
    damage(part)
    as_dvc_would(damaged, stage)
    again = stages.run(damaged, stage, "tuned")
    assert again.code == 0, again.stderr
    assert f"{part.name}: damaged" in again.stderr
    assert content(damaged, stage) == content(whole.folder, stage)
    record_property("tried", f"{stage}: a finished batch, {request.node.callspec.id.split('-')[-1]}")
    record_property("outcome", "named, done again, the same bytes")


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["one bit flipped", "cut in half", "missing"])
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("models/tuned/adapter_model.safetensors", "gen_math tuned"),
        ("models/tuned/adapter_config.json", "gen_safety tuned"),
        ("data/prepared/train.jsonl", "finetune"),
        ("data/prepared/test.jsonl", "gen_math base"),
        ("data/prepared/hazards.jsonl", "judge tuned"),
        ("data/embedded/train.jsonl", "prepare"),
        ("data/embedded/hazards.csv", "prepare"),
    ],
)
def test_a_damaged_input(stages, damaged, file, stage, damage, record_property, request):
    damage(damaged / file)
    done = stages.run(damaged, *stage.split())
    assert done.code == 1
    assert done.stderr.startswith("error: ")
    assert file in done.stderr
    assert "Traceback" not in done.stderr
    record_property("tried", f"{stage}: {file} {request.node.callspec.id.split('-')[-1]}")
    record_property("outcome", f"exit code 1, “{done.stderr.strip()[:90]}…”")


def test_another_configuration_never_takes_work_over(stages, whole, damaged, record_property):
    halfway(stages, whole, damaged, "finetune")
    write_params(damaged, **{**SMALL, "finetune__learning_rate": 2e-2})
    other = stages.run(damaged, "finetune")
    assert (other.code, "going on" in other.stderr) == (0, False)
    write_params(damaged, **SMALL)
    again = stages.run(damaged, "finetune")
    assert "going on from" in again.stderr
    assert content(damaged, "finetune") == content(whole.folder, "finetune")
    for seed in range(5):
        write_params(damaged, **{**SMALL, "finetune__seed": seed})
        killed = stages.run(damaged, "finetune", before_event=120)
        assert killed.code == -signal.SIGKILL
    kept = [path for path in (damaged / ".ckpt/finetune").iterdir() if path.is_dir()]
    assert len(kept) == 3
    record_property("tried", "finetune killed, another learning rate run in between; then killed under five seeds")
    record_property("outcome", "no work taken over by another configuration; three unfinished folders kept, no more")


JUMPING = """
import time
real, calls = time.time, [0]
def jumping():
    calls[0] += 1
    return real() + (-1) ** calls[0] * 86400.0 * 365
time.time = jumping
"""


@pytest.mark.parametrize("stage", ["finetune", "gen_math"])
def test_a_clock_that_jumps(stages, whole, damaged, stage, record_property):
    arguments = [] if stage == "finetune" else ["tuned"]
    halfway(stages, whole, damaged, stage, *arguments)
    for number, path in enumerate((damaged / ".ckpt").rglob("*")):
        os.utime(path, (number % 2 * 4e9, number % 2 * 4e9))  # 1970 and 2096
    (damaged / "clock").mkdir()
    (damaged / "clock/sitecustomize.py").write_text(JUMPING)
    as_dvc_would(damaged, stage)
    paths = f"{damaged / 'clock'}{os.pathsep}{ROOT}"
    done = stage_in(damaged, stage, *arguments, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert content(damaged, stage) == content(whole.folder, stage)
    record_property("tried", f"{stage}: every reading of the clock is a year before or after; files from 1970 and 2096")
    record_property("outcome", "went on where it was killed, the same bytes")


def test_two_at_the_same_work(whole, damaged, record_property):
    as_dvc_would(damaged, "gen_safety")
    command = [sys.executable, "-m", "stages.gen_safety", "tuned"]
    first = subprocess.Popen(command, cwd=damaged, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    while not list((damaged / ".ckpt").rglob("pid")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.Popen(command, cwd=damaged, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    while f"waiting for process {first.pid} on" not in (said := second.stderr.readline()):
        assert second.poll() is None, said
    first.send_signal(signal.SIGCONT)
    assert (first.wait(), second.wait()) == (0, 0)
    assert content(damaged, "gen_safety") == content(whole.folder, "gen_safety")
    record_property("tried", "gen_safety started a second time while it runs")
    record_property("outcome", f"“{said.strip()[:120]}…”; then it takes over what is finished, to the same bytes")


@pytest.mark.parametrize("stage", ["finetune", "gen_math", "gen_safety", "judge", "report"])
def test_ctrl_c(stages, whole, damaged, stage, record_property):
    arguments = [] if stage in ("finetune", "report") else ["tuned"]
    for moment in range(4):
        as_dvc_would(damaged, stage)
        if stage != "report":
            shutil.rmtree(damaged / ".ckpt", ignore_errors=True)
        event = round((moment + 0.5) / 4 * whole.ended[stage].events)
        stopped = stages.run(damaged, stage, *arguments, before_event=event, by=signal.SIGINT)
        assert stopped.code == 130, stopped.stderr
        assert stopped.stderr.endswith("interrupted; the same command goes on from here\n")
        assert "Traceback" not in stopped.stderr
        as_dvc_would(damaged, stage)
        assert stages.run(damaged, stage, *arguments).code == 0
        assert content(damaged, stage) == content(whole.folder, stage)
    record_property("tried", f"{stage}: Ctrl-C at 4 moments")
    record_property("outcome", "exit code 130, no traceback; run again, the same bytes")


def test_a_terminal_that_goes_away(whole, damaged, record_property):
    as_dvc_would(damaged, "gen_safety")
    command = [sys.executable, "-m", "stages.gen_safety", "tuned"]
    child, terminal = pty.fork()
    if not child:
        os.chdir(damaged)
        os.execve(command[0], command, ONE_THREAD)
    while not list((damaged / ".ckpt").rglob("*.json")):
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (-signal.SIGHUP, 1)
    as_dvc_would(damaged, "gen_safety")
    assert stage_in(damaged, "gen_safety", "tuned").returncode == 0
    assert content(damaged, "gen_safety") == content(whole.folder, "gen_safety")
    record_property("tried", "gen_safety: its terminal is closed")
    record_property("outcome", "it ends; run again, it goes on, the same bytes")


def test_no_stage_opens_a_connection(damaged, tmp_path, tiny_models, record_property):
    """In a network namespace without a network, and every attempt at one written down."""
    namespaces("--net")
    commit = "a" * 40
    hub = tmp_path / "hub/models--owner--tiny/snapshots" / commit
    shutil.copytree(tiny_models["qwen2"], hub)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    with Stages.start(environment, namespaces("--net"), deny_network=True) as denied:
        for changes in (
            SMALL,
            {**SMALL, "model__name": "owner/tiny", "model__revision": commit},
            {**SMALL, "model__name": "embedded/smollm2-135m", "data__train_rows": 2, "data__test_rows": 2},
        ):
            write_params(damaged, **changes)
            few = "embedded" in changes["model__name"]
            for stage in (("prepare",), ("finetune",), ("gen_math", "tuned"), *(() if few else OTHERS)):
                done = denied.run(damaged, *stage)
                assert done.code == 0, done.stderr
                assert "network: " not in done.stderr, done.stderr
    record_property("tried", "all stages with a local, a cached hub and an embedded model, without a network")
    record_property("outcome", "they end with 0, and none tried to open a connection or to look up a name")


OTHERS = (("gen_math", "base"), ("gen_safety", "base"), ("gen_safety", "tuned"), ("judge", "base"), ("judge", "tuned"))


def test_what_threads_and_batch_size_change(whole, damaged, record_property):
    """Not the same bits: sums are taken in another order. How many answers differ is reported, not hidden."""
    changed = {}
    for name, threads, batch in (("2 threads", 2, 4), ("a batch of 24", 1, 24), ("batches of 1", 1, 1)):
        write_params(damaged, **{**SMALL, "gen_math__batch_size": batch})
        done = stage_in(damaged, "gen_math", "tuned", OMP_NUM_THREADS=str(threads))
        assert done.returncode == 0, done.stderr
        rows = [texts(folder / "data/generated/tuned/math.jsonl") for folder in (whole.folder, damaged)]
        assert list(rows[0]) == list(rows[1])
        changed[name] = sum(rows[0][row] != rows[1][row] for row in rows[0])
    record_property("tried", "gen_math with other numbers of threads and batch sizes, in bfloat16")
    record_property("outcome", "; ".join(f"{name}: {count} of 24 answers differ" for name, count in changed.items()))


def texts(path: Path) -> dict[str, str]:
    return {row["id"]: row["text"] for row in map(json.loads, read_text(path).splitlines())}
