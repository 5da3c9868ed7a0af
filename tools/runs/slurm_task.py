"""What Slurm runs: one job for what runs have in common, then a task for each run (tools/slurm.py submits them).

python -m tools.runs.slurm_task shared PROFILE COMMIT RUN... [-S NAME=VALUE]...
python -m tools.runs.slurm_task task PROFILE COMMIT RUN... [-S NAME=VALUE]...

$SLURM_ARRAY_TASK_ID: the run's place among these, from 1
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.report.published import Run, Study
from tools.runs.experiments import is_measured, keep_result, measure
from tools.runs.slurm import QUEUED, TRIED, run_log, shared_log, slurm, study_of, work

SHARED = ("gen_math@base", "judge@base")  # the last stages of what is the same for many runs...
DECISIVE = ("data", "model", "fewshot", "gen_math", "gen_safety", "judge")  # ...wherever these sections are the same
FAILURES = 3  # a task that fails is tried again so often; what a node or a time limit ended is no failure of its own
PATIENCE = 6  # times that Slurm's controller is asked to queue a task again


def main() -> None:
    top = parser(__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name in ("shared", "task"):
        command = commands.add_parser(name)
        command.add_argument("profile")
        command.add_argument("commit")
        command.add_argument("runs", nargs="+")
        command.add_argument("-S", "--set", action="append", default=[])
    arguments = top.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: _again(f"the time limit is near{QUEUED}"))
    try:
        study = study_of(arguments.commit, arguments.set)
        if arguments.command == "shared":
            _measure_shared(study, arguments.profile, arguments.commit, arguments.runs)
        else:
            each = study.run(arguments.runs[int(os.environ["SLURM_ARRAY_TASK_ID"]) - 1])
            _measure_run(study, each, arguments.profile, arguments.commit)
    except (BadInput, OSError) as error:
        if task_log(arguments.profile).read_bytes().count(TRIED.encode()) < FAILURES:
            _again(f"error: {error}{TRIED}")
        raise


def _measure_shared(study: Study, profile: str, commit: str, names: Sequence[str]) -> None:
    unfinished, seen = work(profile, f"shared-{os.environ['SLURM_JOB_ID']}"), set()
    for each in map(study.run, names):
        overrides = study.overrides(each, profile)
        decides = json.dumps({key: value for key, value in overrides.items() if key.partition(".")[0] in DECISIVE})
        if decides not in seen:
            seen.add(decides)
            with TemporaryDirectory(prefix="aftertune-", dir=os.environ.get("SLURM_TMPDIR")) as scratch:
                clone = Path(scratch) / "clone"
                measure(study, each, profile, commit, clone, unfinished, targets=SHARED)
    shutil.rmtree(unfinished)


def _measure_run(study: Study, each: Run, profile: str, commit: str) -> None:
    if not is_measured(study, each, profile, commit):
        with TemporaryDirectory(prefix="aftertune-", dir=os.environ.get("SLURM_TMPDIR")) as scratch:
            measure(study, each, profile, commit, Path(scratch) / "clone", work(profile, each.name))
    shutil.rmtree(work(profile, each.name), ignore_errors=True)
    try:
        keep_result(each, profile, commit)
    except BadInput as error:
        print(f"{error}\nits experiment is here: `python -m tools.runs collect`, there, keeps its result")


def _again(why: str) -> None:
    """Have Slurm end this task and queue it again; come back if Slurm takes no such order."""
    print(why, flush=True)
    # one task's SLURM_JOB_ID is the whole array's, and would queue all of it again
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    for _ in range(PATIENCE):
        try:
            slurm("scontrol", "requeue", f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"])
            signal.pause()  # until Slurm ends this process
        except BadInput as error:  # a controller that is busy
            print(error, flush=True)
            time.sleep(10)


def task_log(profile: str) -> Path:
    """Where this process's output goes."""
    if index := os.environ.get("SLURM_ARRAY_TASK_ID"):
        return run_log(profile, os.environ["SLURM_ARRAY_JOB_ID"], int(index))
    return shared_log(profile, os.environ["SLURM_JOB_ID"])


if __name__ == "__main__":
    run(main)
