"""One of the ten runs as a DVC experiment: in a clone of its own, resumed after a kill, its result committed.

`python -m tools.runs run` calls this; its docstring says what may be relied on.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.base.dvc_lock import parse_lock
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_text
from stages.lib.base.params import Params, parse_params
from stages.lib.base.waiting import held
from stages.lib.base.yaml_files import dump_yaml, parse_yaml, read_yaml
from stages.lib.fetch import hub
from stages.lib.measure.stats import Paired
from stages.lib.measure.written import read_headline
from stages.lib.report.published import RUNS, Run, Study, override, resolve
from tools.commands import check_repository, dvc, git
from tools.runs.kept import read_experiment, write_kept

RESULTS = Path("metrics/runs")
CKPT = Path(".ckpt")
WORK = CKPT / "runs"
# what may change without another result
UNDECIDED = ("*.md", "docs", "tests", "bench", "tools", ".github", ".dvc/config", "metrics", "report", "dvc.lock")
NOT_MEASURED = {"machine", "review"}  # sections of params.yaml that decide no result


@dataclass(frozen=True)
class Result:
    """What was kept of a run: its nested parameters, accuracy and safety, over-refusal of base and tuned."""

    params: Mapping[str, Any]
    accuracy: Paired
    safety: Paired
    over_refusal: Mapping[str, float]


def read_result(path: Path) -> Result:
    """A result file."""
    kept = json.loads(read_text(path))
    return Result(kept["params"], **read_headline(kept["headline"]), over_refusal=kept["headline"]["over_refusal"])


def result_file(each: Run, profile: str) -> Path:
    """Headline and parameters of a run; beside it, as .csv, its outcomes, for statistics that nobody thought of yet."""
    return RESULTS / profile / f"{each.name}.json"


def kept_results(study: Study, profile: str) -> list[tuple[Run, Path]]:
    """The runs of a profile that have a result, each with its file. Raises BadInput if none has."""
    found = [(each, path) for each in study.runs if (path := result_file(each, profile)).is_file()]
    if not found:
        made = f"`python -m tools.runs run --all --profile {profile}` makes them"
        raise BadInput(f"{RESULTS / profile}: no results there; {made}")
    return found


def measured(path: Path) -> str:
    """`accuracy before → after / safety before → after` from a result file, or a dash."""
    if not path.is_file():
        return "-"
    result = read_result(path)
    return " / ".join(f"{of.before.value:.2f} → {of.after.value:.2f}" for of in (result.accuracy, result.safety))


def run_one(study: Study, each: Run, profile: str) -> None:
    """Run one of the ten as a DVC experiment in a clone of its own, then write and commit its result."""
    check(study, each, profile)
    check_models(study, each, profile)
    start, path = git("rev-parse", "HEAD"), result_file(each, profile)
    if is_done(study, each, profile):
        print(f"{title(each, profile)}: done, {path} is of this code and these parameters", flush=True)
        return
    started = time.monotonic()
    measure(study, each, profile, start, WORK / "clone", CKPT)
    minutes = (time.monotonic() - started) / 60
    keep_result(each, profile, start)
    print(
        f"{title(each, profile)}: {measured(path)} (accuracy / safety), {minutes:.1f} min, kept as {path}", flush=True
    )


def title(each: Run, profile: str) -> str:
    """The name of the run's experiment."""
    return f"{each.name}-{profile}"


def reference(each: Run, profile: str, commit: str) -> str:
    """Where DVC keeps the experiment of a run that began at a commit."""
    return named(title(each, profile), commit)


def named(name: str, commit: str) -> str:
    """Where DVC keeps the experiment of this name that began at a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def check(study: Study, each: Run, profile: str) -> None:
    """Refuse a run whose parameters are wrong, and a clone that can record no experiment or commit (BadInput)."""
    check_repository()
    git("var", "GIT_COMMITTER_IDENT")
    resolve(read_yaml(Path("params.yaml")), study.overrides(each, profile), str(RUNS))
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise BadInput("this is a shallow clone, in which DVC records no experiment; run `git fetch --unshallow` first")


def check_models(study: Study, each: Run, profile: str) -> None:
    """Refuse a run whose judge, say, is gated now, and not after hours in which it was not needed (BadInput)."""
    params = resolve(read_yaml(Path("params.yaml")), study.overrides(each, profile), str(RUNS))
    for name, revision in ((params.model.name, params.model.revision), (params.judge.model, params.judge.revision)):
        if revision:
            hub.check_model(name, revision)


def measure(
    study: Study, each: Run, profile: str, commit: str, clone: Path, kept: Path, targets: Sequence[str] = ()
) -> None:
    """Run the experiment of a run, as of a commit, in a fresh clone, and fetch it from there into this repository.

    Unfinished work is kept in the folder `kept`. With `targets`, only those stages run, for DVC's cache.
    """
    experiment(title(each, profile), study.overrides(each, profile), commit, clone, kept, targets)


def experiment(
    name: str, overrides: Mapping[str, Any], commit: str, clone: Path, kept: Path, targets: Sequence[str] = ()
) -> None:
    """As `measure`, any experiment: its name, and its dotted parameters where they are other than the commit's."""
    print(f"{name}: dvc exp run", flush=True)
    settings = [part for key, value in overrides.items() for part in ("-S", override(key, value))]
    make_clone(commit, clone, kept)
    dvc("exp", "run", "--name", name, *settings, *targets, folder=clone)
    if not targets:
        made = named(name, commit)
        with writing():
            git("fetch", "--quiet", str(clone), f"+{made}:{made}")
    shutil.rmtree(clone)


def keep_result(each: Run, profile: str, commit: str) -> None:
    """Write and commit the result of a run whose experiment, begun at a commit, is here. Twice is as good as once.

    Raises BadInput if more than results was committed since: it would not be the result of what is checked out.
    """
    experiment, path = reference(each, profile, commit), result_file(each, profile)
    with writing():
        if not only_results_since(commit):
            raise BadInput(
                f"{title(each, profile)} is of commit {commit[:7]}, and more was changed since than results, texts, "
                f"tests and tools; to keep its result, `git switch --create results {commit[:7]}`, collect, and merge"
            )
        outcomes = write_kept(path, each.name, profile, commit, read_experiment(experiment))
        git("add", str(path), str(outcomes))
        if git("status", "--porcelain", "--", str(path), str(outcomes)):
            said = f"Result of {each.name}, {profile} profile"
            git("commit", "--quiet", "-m", said, "--", str(path), str(outcomes))


def is_done(study: Study, each: Run, profile: str) -> bool:
    """Whether the committed result is of these parameters, and no commit but of results was made since it began."""
    path = result_file(each, profile)
    if not path.is_file() or not git("ls-tree", "--name-only", "HEAD", str(path)):
        return False
    result = json.loads(git("show", f"HEAD:{path}"))
    if not only_results_since(result["commit"]):
        return False
    wanted = resolve(read_yaml(Path("params.yaml")), study.overrides(each, profile), str(RUNS))
    return same_params(wanted, result["params"], str(path))


def same_params(wanted: Params, values: Any, where: str) -> bool:
    """Whether something was measured with these parameters, but for what decides nothing."""
    try:
        found = parse_params(values, where)
    except BadInput:  # of other code, which knew other parameters
        return False
    return found.model_dump(exclude=NOT_MEASURED) == wanted.model_dump(exclude=NOT_MEASURED)


def is_measured(study: Study, each: Run, profile: str, commit: str) -> bool:
    """Whether the experiment of a run, begun at a commit and with these parameters, is here."""
    experiment = reference(each, profile, commit)
    if not git("for-each-ref", experiment):
        return False
    own, found = (parse_yaml(git("show", f"{of}:params.yaml"), f"{of}: params.yaml") for of in (commit, experiment))
    return same_params(resolve(own, study.overrides(each, profile), str(RUNS)), found, experiment)


def only_results_since(commit: str) -> bool:
    """Whether what is checked out measures what a commit did: since, only what decides no result was committed.

    It does not if the commit is unknown here.
    """
    if not git("rev-list", "--ignore-missing", "--max-count=1", commit):
        return False
    return not git("diff", "--name-only", commit, "HEAD", "--", ".", *(f":!{path}" for path in UNDECIDED))


@contextmanager
def writing() -> Iterator[None]:
    """One process at a time writes to this repository's git, on whichever machine."""
    with held(WORK / "git.lock", "a result is being written to this repository"):
        yield


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """One `tools.runs run` at a time works in this checkout; another waits, and passes over what has been done then."""
    with held(WORK / "lock", "`tools.runs run` is at work in this checkout already"):
        yield


def make_clone(commit: str, clone: Path, kept: Path) -> None:
    """A clone of this repository at a commit that shares DVC's cache and keeps unfinished work in the folder `kept`."""
    shutil.rmtree(clone, ignore_errors=True)  # of a run that was killed
    git("clone", "--quiet", "--shared", "--no-checkout", ".", str(clone))
    git("-C", str(clone), "checkout", "--quiet", "--detach", commit)
    local = Path(".dvc/config.local")
    if local.is_file():
        shutil.copy(local, clone / local)
    dvc("config", "--local", "cache.dir", dvc("cache", "dir", capture=True).strip(), folder=clone)
    _forget_what_is_not_cached(clone)
    kept.mkdir(parents=True, exist_ok=True)
    (clone / CKPT).symlink_to(kept.resolve())


def _forget_what_is_not_cached(clone: Path) -> None:
    """Take stages whose outputs are not in DVC's cache out of a clone's dvc.lock.

    For a stage that dvc.lock holds with the same parameters and dependencies, DVC (3.67, StageCache.restore) looks for
    those outputs alone. Other outputs of the same stage, which differ in what they cost, it finds only without them.
    """
    if not (clone / "dvc.lock").is_file():  # nothing was measured yet
        return
    found = json.loads(dvc("data", "status", "--json", capture=True, folder=clone))
    missing = {path.rstrip("/") for path in found.get("not_in_cache", [])}
    lock = parse_lock(read_text(clone / "dvc.lock"), "dvc.lock")
    stages = lock["stages"]
    forgotten = [name for name in stages if missing & {out["path"] for out in stages[name]["outs"]}]
    if forgotten:
        print(f"dvc.lock's {', '.join(forgotten)} are not in DVC's cache; DVC warns of their files", flush=True)
        lock["stages"] = {name: stages[name] for name in stages if name not in forgotten}
        write_text(clone / "dvc.lock", dump_yaml(lock))
