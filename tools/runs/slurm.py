"""The ten runs as a Slurm job array: `python -m tools.runs submit`, `status` and `collect`.

The nodes share this checkout: its environment, git, DVC's cache and .ckpt/slurm/<profile>/, with each run's log and
unfinished work. A task measures a commit in a clone on its node's own disk and fetches the experiment into this
checkout; a lock lets one task at a time write to git. A task that is preempted, loses its node, comes near its time
limit, or fails is queued again, on whichever node, and goes on from its checkpoint. An experiment that is here is a run
that is done, and no task does it again.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_json, write_text
from stages.lib.base.waiting import held
from stages.lib.report.published import RUNS, Run, Study, load_study
from tools.commands import git, output
from tools.runs.experiments import (
    CKPT,
    check,
    is_done,
    is_measured,
    keep_result,
    measured,
    only_results_since,
    result_file,
)
from tools.runs.overrides import with_overrides

FOLDER = CKPT / "slurm"
WARNING = 120  # seconds before the time limit in which a task queues itself again
TRIED, QUEUED = "; tried again", "; queued again"  # how a task ends what it writes after a failure, near its time limit


@dataclass(frozen=True)
class Submitted:
    """One run's place in Slurm: array job and index in it, the job before it, the commit it measures, and with which
    `name=value` over the run's own parameters."""

    job: str
    index: int
    shared: str
    commit: str
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Queued:
    """What squeue says of a job or task: its state, why it waits, its node."""

    state: str
    reason: str
    node: str


def submit(runs: Sequence[Run], profile: str, options: Sequence[str], settings: Sequence[str] = ()) -> None:
    """Submit runs as one array behind one job for what they share; pass over those that are done or in the queue.

    `options` go to sbatch as they are, `settings` are laid over every run's parameters. Raises BadInput where a run's
    parameters are wrong, or sbatch refuses.
    """
    commit = git("rev-parse", "HEAD")
    study = study_of(commit, settings)
    runs = [study.run(each.name) for each in runs]
    for each in runs:
        check(study, each, profile)
    with held(FOLDER / profile / "lock", f"runs of the {profile} profile are being submitted"):
        sweep, queue, wanted = read_sweep(profile), read_queue(), []
        for each in runs:
            if is_done(study, each, profile):
                print(f"{each.name}: done, {result_file(each, profile)} is of this commit")
            elif each.name in sweep and _task(sweep[each.name], queue):
                task = sweep[each.name]
                same = only_results_since(task.commit) and [*task.settings] == [*settings]
                old = "" if same else ", which is not this code with these parameters; scancel it to submit this"
                print(f"{each.name}: in the queue as {task.job}_{task.index}, of {what(task)}{old}")
            else:
                wanted.append(each)
        if not wanted:
            return
        folder = FOLDER / profile
        indices = {each.name: place for place, each in enumerate(wanted, 1)}
        laid = [part for setting in settings for part in ("-S", setting)]
        shared = _sbatch(
            [f"--job-name={profile}-shared", f"--output={folder}/shared-%j.log", *options],
            ["shared", profile, commit, *indices, *laid],
        )
        ours = [
            f"--job-name={profile}",
            f"--output={folder}/task-%A-%a.log",
            f"--array=1-{len(indices)}",
            f"--dependency=afterok:{shared}",
            "--kill-on-invalid-dep=yes",
        ]
        try:
            array = _sbatch([*ours, *options], ["task", profile, commit, *indices, *laid])
        except BadInput:
            slurm("scancel", shared)
            raise
        sweep |= {name: Submitted(array, index, shared, commit, settings) for name, index in indices.items()}
        write_json(folder / "sweep.json", {name: asdict(task) for name, task in sweep.items()})
    print(f"job {shared}: what they share; then job {array}, a task each: {', '.join(indices)}")
    print("`python -m tools.runs status` shows how far they are")


def status(study: Study, profile: str) -> list[dict[str, str]]:
    """For each submitted run: waiting, running (stage and progress), done or failed (why, and where its log is)."""
    sweep = read_sweep(profile)
    if not sweep:
        raise BadInput(f"nothing was submitted with profile {profile}; see `python -m tools.runs submit --help`")
    queue = read_queue()  # asked first: what is in no queue any more has brought its experiment back, or failed
    rows = []
    for name, task in sweep.items():
        each = study.run(name)
        queued = _task(task, queue)
        if is_measured(study_of(task.commit, task.settings), each, profile, task.commit):
            state = "done"
            kept = is_done(with_overrides(study, task.settings), each, profile)
            detail = measured(result_file(each, profile)) if kept else "to be kept by `collect`"
        elif queued and queued.state == "PENDING":
            state, detail = "waiting", f"Slurm says {queued.reason}"
            if queued.reason == "BeginTime":
                detail = "queued again, to start in a minute or two"
            elif queued.reason == "Dependency":
                shared, before = work(profile, f"shared-{task.shared}"), queue.get((task.shared, "N/A"))
                waits = before and before.state == "PENDING"
                doing = f"Slurm says {before.reason}" if waits else _progress(shared)
                detail = f"for job {task.shared}, what all runs share: {doing}"
        elif queued:
            state, detail = "running", f"{_progress(work(profile, each.name))}, on {queued.node}"
        else:
            log, when = run_log(profile, task.job, task.index), ""
            if not log.is_file():
                log, when = shared_log(profile, task.shared), "before it started; what came first says: "
            why = shorten(_last_words(log), 160, placeholder=" ...")
            state, detail = "failed", f"{when}{why} (see {log})"
        rows.append({"run": each.name, "state": state, "detail": detail})
    return rows


def collect(study: Study, profile: str) -> None:
    """Keep the results of all experiments that have come back, and say which have not. Twice is as good as once."""
    sweep = read_sweep(profile)
    for name, task in sweep.items():
        each, path = study.run(name), result_file(study.run(name), profile)
        if not is_measured(study_of(task.commit, task.settings), each, profile, task.commit):
            print(f"{each.name}: not measured yet")
            continue
        try:
            if not is_done(with_overrides(study, task.settings), each, profile):
                keep_result(each, profile, task.commit)
            print(f"{each.name}: {measured(path)} (accuracy / safety), {path}")
        except BadInput as error:
            print(error)


def read_sweep(profile: str) -> dict[str, Submitted]:
    """What was submitted, by run."""
    path = FOLDER / profile / "sweep.json"
    return {name: Submitted(**task) for name, task in json.loads(read_text(path)).items()} if path.is_file() else {}


def read_queue() -> dict[tuple[str, str], Queued]:
    """This user's jobs by (job, array index or N/A). Raises BadInput if there is no Slurm, or it does not answer."""
    lines = slurm("squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%r|%N").splitlines()
    fields = [line.split("|") for line in lines]
    return {(job, index): Queued(state, reason, node) for job, index, state, reason, node in fields}


def _task(task: Submitted, queue: Mapping[tuple[str, str], Queued]) -> Queued | None:
    return queue.get((task.job, str(task.index)))


def slurm(*command: str) -> str:
    """Run one of Slurm's commands and return what it printed. Raises BadInput if it fails, or there is none."""
    # whoever filters squeue's output for their eyes does not mean this program
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    return output(*command, missing="this is for machines from which Slurm takes jobs", env=environment)


def _sbatch(options: Sequence[str], arguments: Sequence[str]) -> str:
    """Submit `python -m tools.runs.slurm_task ARGUMENTS`; returns the job's number."""
    command = shlex.join([sys.executable, "-m", "tools.runs.slurm_task", *arguments])
    ours = ["--parsable", "--requeue", "--open-mode=append", f"--signal=B:USR1@{WARNING}", f"--chdir={Path.cwd()}"]
    return slurm("sbatch", *ours, *options, f"--wrap=exec {command}").strip().partition(";")[0]


def what(task: Submitted) -> str:
    """What a task measures: `commit 1a2b3c4 with lora.r=4`."""
    return f"commit {task.commit[:7]}{' with ' if task.settings else ''}{', '.join(task.settings)}"


def study_of(commit: str, settings: Sequence[str] = ()) -> Study:
    """runs.yaml as of a commit, put aside by `submit`: in the checkout it may be edited while tasks wait; with
    `name=value` settings laid over every run's parameters."""
    path = FOLDER / f"runs-{commit}.yaml"
    if not path.is_file():
        write_text(path, git("show", f"{commit}:{RUNS}"))
    return with_overrides(load_study(path), settings)


def run_log(profile: str, job: str, index: int) -> Path:
    """What a task of an array wrote."""
    return FOLDER / profile / f"task-{job}-{index}.log"


def shared_log(profile: str, job: str) -> Path:
    """What the job before the array wrote."""
    return FOLDER / profile / f"shared-{job}.log"


def work(profile: str, name: str) -> Path:
    """Where the unfinished work of a run lies, or of a job for what runs have in common (shared-<job>)."""
    return FOLDER / profile / name


def _progress(work: Path) -> str:
    """The stage at work in a folder of unfinished work, and how far it is; other processes write and clear it."""
    try:
        return _read_progress(work)
    except (OSError, ValueError, BadInput):  # gone, or half-written, since it was listed
        return "between two stages"


def _read_progress(work: Path) -> str:
    started = sorted(work.glob("*/*/pid"), key=lambda file: file.stat().st_mtime)
    if not started:
        return "starting, or writing its result"
    folder = started[-1].parent
    stage = folder.parent.name
    if (folder / "done").is_file():
        return f"after {stage}"
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda file: file.stat().st_mtime)
    if states:
        state = json.loads(read_text(states[-1]))
        return f"{stage}, update {state['global_step']} of {state['max_steps']}"
    batches = len(list(folder.glob("*.json")))
    return f"{stage}, {batches} batches done" if batches else stage


def _last_words(log: Path) -> str:
    """What a log says last of what went wrong: a stage's message, else what stands around it, else its last line."""
    text = log.read_bytes().decode(errors="replace") if log.is_file() else ""  # a kill may end it anywhere
    last_try = text.rpartition(TRIED)[2].rpartition(QUEUED)[2]
    lines = [line.strip() for line in last_try.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error:", "slurmstepd: error:"))]
    of_stages = [line for line in errors if line.startswith("error:") and not line.startswith("error: dvc ")]
    return (of_stages or errors or lines or ["nothing was written"])[-1].removeprefix("error: ")
