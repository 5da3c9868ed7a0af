"""One of the ten runs as a DVC experiment: in a clone of its own, resumed after a kill, its result committed.

`python -m tools.runs run` calls this; its docstring says what may be relied on.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from stages.lib.errors import BadInput
from stages.lib.params import read_yaml
from stages.lib.published import RUNS, Run, Study, resolve
from stages.lib.records import read_text, write_json
from tools.commands import dvc, git

RESULTS = Path("metrics/runs")
CKPT = Path(".ckpt")
WORK = CKPT / "runs"


def result_file(each: Run, profile: str) -> Path:
    return RESULTS / profile / f"{each.name}.json"


def measured(path: Path) -> str:
    """`accuracy before → after / safety before → after` from a result file, or a dash."""
    if not path.is_file():
        return "-"
    head = json.loads(read_text(path))["headline"]
    return " / ".join(f"{head[name]['base']:.2f} → {head[name]['tuned']:.2f}" for name in ("accuracy", "safety"))


def run_one(study: Study, each: Run, profile: str) -> None:
    """Run one of the ten as a DVC experiment in a clone of its own, then write and commit its result."""
    overrides = study.overrides(each, profile)
    resolve(read_yaml(Path("params.yaml")), overrides, str(RUNS))
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise BadInput("this is a shallow clone, in which DVC records no experiment; run `git fetch --unshallow` first")
    name, start, path = f"{each.name}-{profile}", git("rev-parse", "HEAD"), result_file(each, profile)
    if is_done(name, path):
        print(f"{name}: {path} is of this commit; `dvc exp remove {name}` lets it run again", flush=True)
        return
    settings = [part for key, value in overrides.items() for part in ("-S", f"{key}={override(value)}")]
    print(f"{name}: dvc exp run", flush=True)
    started = time.monotonic()
    clone = fresh_clone(start)
    dvc("exp", "run", "--name", name, *settings, folder=clone)

    experiment = f"refs/exps/{start[:2]}/{start[2:]}/{name}"
    git("fetch", "--quiet", str(clone), f"+{experiment}:{experiment}")
    shutil.rmtree(clone)
    head = json.loads(git("show", f"{experiment}:metrics/headline.json"))
    values = YAML(typ="safe").load(git("show", f"{experiment}:params.yaml"))
    write_json(path, {"run": each.name, "profile": profile, "headline": head, "params": values})
    git("add", str(path))
    if git("status", "--porcelain", "--", str(path)):
        git("commit", "--quiet", "-m", f"Result of {each.name}, {profile} profile", "--", str(path))
    minutes = (time.monotonic() - started) / 60
    print(f"{name}: {measured(path)} (accuracy / safety), {minutes:.1f} min, committed as {path}", flush=True)


def is_done(name: str, path: Path) -> bool:
    """Whether the committed result is this experiment's, and no commit but of results was made since it began."""
    if not git("ls-tree", "--name-only", "HEAD", str(path)):
        return False
    result = json.loads(git("show", f"HEAD:{path}"))
    for ref in git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines():
        baseline, found = "".join(ref.split("/")[2:4]), ref.rpartition("/")[2]
        if found == name and not git("diff", "--name-only", baseline, "HEAD", "--", ".", f":!{RESULTS}"):
            return json.loads(git("show", f"{ref}:metrics/headline.json")) == result["headline"]
    return False


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Refuse to run beside another `tools.runs run` of this checkout."""
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(WORK / "lock", timeout=0):
            yield
    except Timeout:
        raise BadInput(
            "another `tools.runs run` is at work in this checkout; wait until it is done, or stop it"
        ) from None


def fresh_clone(commit: str) -> Path:
    """A clone of this repository at a commit that shares its DVC cache and its unfinished work."""
    clone = WORK / "clone"
    shutil.rmtree(clone, ignore_errors=True)  # of a run that was killed
    git("clone", "--quiet", "--shared", "--no-checkout", ".", str(clone))
    git("-C", str(clone), "checkout", "--quiet", "--detach", commit)
    local = Path(".dvc/config.local")
    if local.is_file():
        shutil.copy(local, clone / local)
    dvc("config", "--local", "cache.dir", dvc("cache", "dir", capture=True).strip(), folder=clone)
    (clone / CKPT).symlink_to(CKPT.resolve())
    return clone


def override(value: Any) -> str:
    """A value in the grammar of `dvc exp run -S`: JSON, with text in single quotes."""
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)
