"""SIGKILL under DVC: the whole process group again and again, until the same command comes to its end.

Eight repositories, each with a DVC cache of its own, run the same small pipeline: two unbroken (the same bytes twice),
one as an unbroken sweep, one as an unbroken experiment, and four that are killed: `dvc repro`, `dvc exp run`, `dvc exp
run --temp`, `tools.runs`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ONE_THREAD, READ_BY_STAGES, ROOT, write_params
from tests.faults.test_kills import SMALL, content

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WHO = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
PATHS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
ENVIRONMENT = {name: value for name, value in {**ONE_THREAD, **WHO, "PATH": PATHS}.items() if name != "PYTHONPATH"}
REPRO = ("dvc", "repro")
CHANGED = ("-S", "lora.r=4")
WORKSPACE = ("dvc", "exp", "run", "--name", "killed", *CHANGED)
TEMP = ("dvc", "exp", "run", "--temp", "--name", "killed", *CHANGED)
SWEEP = ("python", "-m", "tools.runs", "run", "--all")
SECONDS = (5, 8, 11, 14)  # after the start: in DVC itself, in a stage's imports, in its work, in the next stage


def run(folder: Path, command: Sequence[str], seconds: float | None = None) -> int | None:
    """Run a command in a folder; kill its whole process group after some seconds (and return None)."""
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def said(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.log").read_text()


def ask(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def killed_until_done(folder: Path, command: Sequence[str], later: int = 0) -> int:
    """Run a command and kill it, again and again, until it ends by itself with 0; returns the number of kills."""
    for kills, seconds in enumerate(cycle(SECONDS)):
        code = run(folder, command, seconds + later + kills // 3)  # longer and longer, for a machine that is busy
        if code is not None:
            # killed between the end of the experiment and its own, DVC refuses to run it again
            assert code == 0 or "conflicts with existing experiment 'killed'" in said(folder), said(folder)
            return kills
        assert kills < 40, f"it does not come to an end: {said(folder)}"


@pytest.fixture(scope="module")
def origin(tiny_models, tmp_path_factory) -> Path:
    """The repository that all others are clones of: this code, a tiny model in git, two runs in runs.yaml."""
    folder = tmp_path_factory.mktemp("dvc") / "origin"
    skipped = shutil.ignore_patterns("tuned", "__pycache__", "guard")
    for name in READ_BY_STAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    # dvc.yaml names the guard's folder; the tiny model is loaded from its own
    (folder / "models/embedded/guard").mkdir()
    (folder / "models/embedded/guard/README.md").write_text("not used here\n")
    for name in ("dvc.yaml", ".gitignore", "data/.gitignore", "models/.gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(tiny_models["qwen2"], folder / "tiny")
    write_params(folder, **SMALL)
    study = YAML(typ="safe").load((ROOT / "runs.yaml").read_text())
    profile = study["profiles"]["embedded"]
    profile["models"] = {size: {"model.name": "./tiny"} for size in profile["models"]}
    profile["overrides"] = {}
    study["common"] = {}
    rates = {"run01": 1e-2, "run02": 3e-2}
    study["runs"] = {name: {**study["runs"][name], "overrides": short(rate)} for name, rate in rates.items()}
    with (folder / "runs.yaml").open("w") as file:
        YAML().dump(study, file)
    for command in (["git", "init", "-q", "-b", "main", "."], ["git", "add", "-A"], ["git", "commit", "-qm", "all"]):
        subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)
    return folder


def short(rate: float) -> dict[str, float]:
    """A run's overrides: those of Table 2's columns that `list` prints."""
    lora = {"lora.r": 4, "lora.alpha": 8, "lora.dropout": 0.1}
    tuning = {"finetune.epochs": 1, "finetune.learning_rate": rate, "finetune.warmup_ratio": 0.0}
    return {**lora, **tuning, "finetune.weight_decay": 0.0, "fewshot.shots": 2, "gen_math.max_new_tokens": 24}


@pytest.fixture(scope="module")
def jobs(origin: Path) -> dict[str, tuple[Path, Future]]:
    """All eight, two at a time."""
    pool = ThreadPoolExecutor(2)
    started = {}
    for name, work in {
        "first": lambda folder: run(folder, REPRO),
        "second": lambda folder: run(folder, REPRO),
        "sweep": lambda folder: run(folder, SWEEP),
        "killed repro": lambda folder: killed_until_done(folder, REPRO),
        "killed sweep": lambda folder: killed_until_done(folder, SWEEP, later=8),  # it makes a clone first
        "killed workspace": lambda folder: killed_until_done(folder, WORKSPACE),
        "killed temp": lambda folder: killed_until_done(folder, TEMP, later=4),  # it makes a clone, too
        "experiment": lambda folder: run(folder, WORKSPACE),
    }.items():
        folder = origin.parent / name.replace(" ", "-")
        subprocess.run(["git", "clone", "-q", str(origin), str(folder)], env=ENVIRONMENT, check=True)
        started[name] = (folder, pool.submit(work, folder))
    return started


ALL = ("prepare", "finetune", "gen_math", "gen_safety", "judge", "report")


def everything(folder: Path) -> dict[str, bytes]:
    return {name: data for stage in ALL for name, data in content(folder, stage).items()}


def written(lock: str) -> dict[str, str]:
    """The md5 of every output in a dvc.lock, but for those that hold what a stage cost."""
    stages = YAML(typ="safe").load(lock)["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    return {path: md5 for path, md5 in outs.items() if "cost" not in path and not path.startswith("report/report")}


def test_two_clones_write_the_same_bytes(jobs, record_property):
    (first, one), (second, two) = jobs["first"], jobs["second"]
    assert (one.result(), two.result()) == (0, 0), said(first) + said(second)
    found = everything(first)
    assert found == everything(second)
    assert {"metrics/headline.json", "metrics/detail.json", "data/generated/tuned/verdicts.jsonl"} <= set(found)
    record_property("tried", "the whole pipeline in two clones, with a cache each")
    record_property("outcome", f"the same bytes in all {len(found)} outputs (what a stage cost is left out)")


def test_dvc_repro_killed(jobs, record_property):
    first, _ = jobs["first"]
    folder, job = jobs["killed repro"]
    kills = job.result()
    assert everything(folder) == everything(first)
    left = [path for path in folder.rglob("*.part") if ".ckpt" not in path.parts]
    assert not left
    assert not list((folder / ".ckpt").glob("*/*")), "finished work was not cleared"
    assert kills >= 5
    record_property("tried", f"dvc repro, the process group killed {kills} times")
    record_property("kills", kills)
    record_property("outcome", "the same bytes as unbroken; nothing left under .ckpt")


@pytest.mark.parametrize(("name", "command"), [("killed workspace", WORKSPACE), ("killed temp", TEMP)])
def test_dvc_exp_run_killed(jobs, name, command, record_property):
    folder, job = jobs[name]
    kills = job.result()
    reference, unbroken = jobs["experiment"]
    assert unbroken.result() == 0, said(reference)
    wanted = ask(reference, "git", "show", f"{experiment(reference)}:dvc.lock")
    got = ask(folder, "git", "show", f"{experiment(folder)}:dvc.lock")
    assert written(got) == written(wanted)
    for metric in ("headline", "detail"):
        path = f"metrics/{metric}.json"
        assert ask(folder, "git", "show", f"{experiment(folder)}:{path}") == ask(
            reference, "git", "show", f"{experiment(reference)}:{path}"
        )
    record_property("tried", f"{' '.join(command)}, the process group killed {kills} times")
    record_property("kills", kills)
    record_property("outcome", "the same outputs as unbroken, by dvc.lock; the same headline and detail")


def experiment(folder: Path) -> str:
    return next(ref for ref in ask(folder, "git", "for-each-ref", "--format=%(refname)").split() if "/killed" in ref)


def test_a_sweep_killed(jobs, record_property):
    (unbroken, one), (folder, job) = jobs["sweep"], jobs["killed sweep"]
    assert one.result() == 0, said(unbroken)
    kills = job.result()
    for name in ("run01", "run02"):
        path = f"metrics/runs/embedded/{name}.json"
        results = [json.loads(ask(of, "git", "show", f"HEAD:{path}")) for of in (folder, unbroken)]
        one_s_own = {"cost": None, "commit": None}  # of a run, and of the clone that it was made in
        assert {**results[0], **one_s_own} == {**results[1], **one_s_own}
        assert json.loads((folder / path).read_text())["headline"]["n"]["math"] == 24
    assert ask(folder, "git", "status", "--porcelain", "--untracked-files=all") == ""
    assert ask(folder, "git", "symbolic-ref", "HEAD") == "refs/heads/main"
    assert not (folder / ".ckpt/runs/clone").exists()
    assert "run01-embedded" in ask(folder, "dvc", "exp", "list", "--all-commits", "--name-only")
    record_property("tried", f"tools.runs run --all (two runs), the process group killed {kills} times")
    record_property("kills", kills)
    record_property("outcome", "the same two results committed; branch, params.yaml and workspace untouched")


def test_queued_experiments_that_have_work_in_common_all_come_to_their_end(origin, record_property):
    folder = origin.parent / "queued"
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], env=ENVIRONMENT, check=True)
    # up to here, it is the same work; it takes longer than one worker starts after the other
    slow = (
        "-S",
        "gen_safety.max_new_tokens=256",
        "-S",
        "gen_safety.batch_size=2",
        "-S",
        "gen_safety.end_repetition=false",
    )
    for rank in (4, 6):
        changed = ("-S", f"lora.r={rank}", *slow)
        ask(folder, "dvc", "exp", "run", "--queue", "--name", f"rank{rank}", *changed, "judge@base")
    ask(folder, "dvc", "queue", "start", "--jobs", "2")
    for _ in range(300):
        time.sleep(2)
        states = re.findall(r"rank[46] .* (Queued|Running|Success|Failed)", ask(folder, "dvc", "queue", "status"))
        if not {"Queued", "Running"} & set(states):
            break
    logs = [ask(folder, "dvc", "queue", "logs", f"rank{rank}") for rank in (4, 6)]
    assert states == ["Success", "Success"], logs
    waited = [log for log in logs if "is being done already; waiting for process" in log]
    assert waited, logs
    assert all("no more: going on after" in log for log in waited)
    record_property("tried", "dvc exp run --queue twice, dvc queue start --jobs 2, nothing in the cache")
    record_property("outcome", "both succeed: one waits for what both need, says for whom, and takes it over")


def test_a_damaged_entry_of_dvcs_cache_is_refused_by_name(jobs, tmp_path, record_property):
    first, job = jobs["first"]
    job.result()
    folder = tmp_path / "damaged"
    shutil.copytree(first, folder, symlinks=True)
    path = "data/generated/tuned/safety.jsonl"
    lock = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]
    md5 = next(out["md5"] for stage in lock.values() for out in stage["outs"] if out["path"] == path)
    entry = folder / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    data = bytearray(entry.read_bytes())
    place = data.index(b'"text":"') + 9
    data[place] ^= 1
    entry.chmod(0o644)
    entry.write_bytes(data)
    entry.chmod(0o444)
    (folder / path).unlink()
    assert run(folder, ("dvc", "checkout", path)) == 0  # DVC does not look: this is the damage
    assert (folder / path).read_bytes() == bytes(data)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("controversial: unsafe", "controversial: safe"))
    assert run(folder, ("dvc", "repro", "judge@tuned")) != 0
    assert f"{path} is damaged: its md5 is" in said(folder)
    assert f"files/md5/{md5[:2]}/{md5[2:]}" in said(folder)
    entry.unlink()
    (folder / path).unlink()
    assert run(folder, REPRO) == 0, said(folder)
    assert content(folder, "gen_safety") == content(first, "gen_safety")
    record_property("tried", "an entry of DVC's cache with one bit flipped, checked out by DVC")
    record_property(
        "outcome", "the stage that reads it names the file and the entry; removed, dvc repro makes it again"
    )
