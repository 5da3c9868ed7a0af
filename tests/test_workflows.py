"""The workflows: pinned actions, least permissions, and every step's command run in a clean clone."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

WORKFLOWS = {path.stem: YAML(typ="safe").load(path) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]


def steps(workflow: str, job: str) -> list[dict]:
    return WORKFLOWS[workflow]["jobs"][job]["steps"]


def test_there_are_the_two_that_are_documented():
    assert list(WORKFLOWS) == ["publish", "review"]


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_actions_are_pinned_to_commits_and_jobs_have_limits(workflow, job):
    for step in steps(workflow, job):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
            if step["uses"].startswith("actions/checkout@"):
                assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert WORKFLOWS[workflow]["jobs"][job]["timeout-minutes"] <= 60


def test_who_runs_a_pull_requests_code_can_write_nothing():
    allowed = {
        ("review", "review"): {"contents": "read"},
        ("review", "comment"): {"pull-requests": "write"},
        ("publish", "report"): {"contents": "read"},
        ("publish", "deploy"): {"pages": "write", "id-token": "write"},
    }
    for workflow, job in JOBS:
        assert WORKFLOWS[workflow]["permissions"] == {}
        assert WORKFLOWS[workflow]["jobs"][job]["permissions"] == allowed[workflow, job]
    for workflow, job in (("review", "comment"), ("publish", "deploy")):
        assert not any("checkout" in step.get("uses", "") for step in steps(workflow, job))
    text = "".join(path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml"))
    assert "secrets." not in text
    assert "pull_request_target" not in text


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_what_others_may_name_reaches_a_shell_only_as_a_variable(workflow, job):
    for step in steps(workflow, job):
        assert "${{" not in step.get("run", "")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone of what is committed, with this environment as its own and this repository's DVC cache."""
    if subprocess.run(["git", "rev-parse", "--git-dir"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git repository: there is nothing to clone")
    if not Path(sys.prefix, ".installed").is_file():
        pytest.skip("this environment was not made by `make setup`, which would now be run upon it")
    folder = tmp_path_factory.mktemp("clone") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "-B", "main"], cwd=folder, check=True)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], cwd=folder, check=True)
    (folder / ".venv").symlink_to(sys.prefix)
    os.utime(folder / "requirements.lock", (0, 0))  # `make setup` has nothing to do
    cache = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], cwd=ROOT, capture_output=True, text=True)
    config = ["config", "--local", "cache.dir", cache.stdout.strip()]
    subprocess.run([sys.executable, "-m", "dvc", *config], cwd=folder, check=True)
    return folder


def run(clone: Path, workflow: str, job: str, name: str, **variables: str) -> str:
    """Run a step's command as GitHub does (bash -e), with the job's variables where they need nothing of GitHub."""
    step = next(step for step in steps(workflow, job) if step.get("name") == name)
    plain = {**os.environ, "BASE": "origin/main", "LINK": "https://example.org/runs/1#artifacts", **variables}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=clone, capture_output=True, text=True, env=plain)
    # the numbers in this repository may leave a rule undecided, and then the gate stops
    ruled = name == "Gate" and "not to be merged by the rules of params.yaml" in done.stderr
    assert done.returncode == 0 or ruled, f"{name}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_steps_of_the_review_run_in_a_clean_clone(clone, tmp_path):
    ran = []
    for step in steps("review", "review"):
        if "run" in step:
            # all tests run already: here, that the command works
            few = {"PYTEST_ADDOPTS": "tests/measure/test_stats.py"} if step["name"] == "Tests" else {}
            printed = run(clone, "review", "review", step["name"], **few)
            ran.append(step["name"])
            if step["name"] == "Tests":
                assert " passed" in printed
    assert ran == ["Set up", "Review", "Metrics agree with the code", "Gate", "Tests"]
    text = (clone / "review/review.md").read_text(encoding="utf-8")
    assert text.startswith("<!-- aftertune review -->\n## `origin/main (")
    assert "](https://example.org/runs/1#artifacts)" in text
    assert "**No evidence of a change in any measure. " in text
    assert len(text) < 65_536  # GitHub's limit of a comment


@pytest.mark.slow
@pytest.mark.parametrize(("found", "asked"), [("", "POST COMMENTS"), ("17", "PATCH COMMENT/17")])
def test_one_comment_is_posted_or_updated(clone, tmp_path, found, asked):
    """GitHub's own client is the one thing that cannot run here: what it would be asked is written down instead."""
    client = tmp_path / "gh"
    client.write_text(
        f'#!/bin/sh\nif [ "$3" = --paginate ]; then echo "{found}"; else echo "$@" > "{tmp_path}/asked"; fi\n'
    )
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    step = "Post or update the comment"
    run(tmp_path, "review", "comment", step, PATH=path, COMMENTS="COMMENTS", COMMENT="COMMENT", GH_TOKEN="none")
    assert (tmp_path / "asked").read_text().strip() == f"api --method {asked} -F body=@review.md --silent"


@pytest.mark.slow
def test_the_steps_of_publishing_run_in_a_clean_clone(clone):
    for step in steps("publish", "report"):
        if "run" in step:
            if step["name"] == "Run the pipeline" and not cached(clone):
                pytest.skip("this repository's cache has no run of the pipeline yet, which takes minutes: `make repro`")
            run(clone, "publish", "report", step["name"])
    assert "<h1>" in (clone / "site/index.html").read_text(encoding="utf-8")
    assert (clone / "site/plane.png").is_file()


def cached(clone: Path) -> bool:
    """Whether every stage's outputs can be had from the cache."""
    done = subprocess.run([sys.executable, "-m", "dvc", "checkout"], cwd=clone, capture_output=True, text=True)
    return done.returncode == 0 and shutil.which("make") is not None
