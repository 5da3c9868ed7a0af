"""Runs of the embedded profile through a real Slurm: two nodes, one of them killed, a run that fails, a time limit.

make test-cluster       (installs Debian's slurm-wlm and munge if they are missing; some 45 minutes on two cores)
"""

import json
import re
import time
from collections.abc import Callable

import pytest

from tests.cluster.conftest import Checkout, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RUNS = ("run02", "run03", "run05", "run07")
SHORT = ("run02", "run05")
PATIENCE = 3600
# for what needs no result worth reading: a run in a minute
SMALL = {
    "data.train_rows: 32": "data.train_rows: 8",
    "data.test_rows: 48": "data.test_rows: 4",
    "data.hazard_rows: all\n      data.benign_rows: all\n      finetune": (
        "data.hazard_rows: 14\n      data.benign_rows: 7\n      finetune"
    ),
    "max_new_tokens: 512}": "max_new_tokens: 16}",
}
ENDED = ("done", "failed")
States = dict[str, tuple[str, str]]


def follow(
    here: Checkout, cluster: Cluster, watch: Callable[[float, States], None] = lambda *_: None, every: int = 2
) -> States:
    """Ask for the status until every run has ended, and hand each answer on, with the seconds; the last answer."""
    start = time.monotonic()
    while True:
        states, seconds = here.states(), time.monotonic() - start
        print(f"{seconds:.0f} s {states}", flush=True)
        watch(seconds, states)
        if all(state in ENDED for state, _ in states.values()):
            return states
        assert seconds < PATIENCE, states
        cluster.start_requeued()
        time.sleep(every)


def log(here: Checkout, run: str) -> str:
    submitted = json.loads((here.folder / ".ckpt/slurm/embedded/sweep.json").read_text())[run]
    return (here.folder / ".ckpt/slurm/embedded/task-{job}-{index}.log".format(**submitted)).read_text()


def headlines(here: Checkout) -> dict[str, dict]:
    files = (here.folder / "metrics/runs/embedded").glob("run*.json")
    return {file.stem: json.loads(file.read_text())["headline"] for file in files}


def results_committed(here: Checkout) -> int:
    return here.run("git", "log", "--format=%s", "origin/main..").count("Result of")


def test_a_run_that_fails_and_one_that_comes_near_its_time_limit_are_queued_again(cluster: Cluster, checkout):
    breaks_down = {"lora.alpha: 16, lora.dropout: 0.0": "lora.alpha: 1.0e+30, lora.dropout: 0.0"}  # of run02
    failing = checkout("failing", {**SMALL, **breaks_down})
    limited = checkout("limited", SMALL)
    failing.runs("submit", "run02", "run05")
    limited.runs("submit", "run03", "--time", "3")  # minutes, of which the last two are the warning
    assert failing.runs("submit", "run02", "run05").count("in the queue as") == 2
    states = follow(failing, cluster)
    assert states["run05"][0] == "done"
    assert states["run02"][0] == "failed"
    assert states["run02"][1].startswith("finetune: training broke down at update")
    assert re.search(r"\(see \.ckpt/slurm/embedded/task-[0-9]+-1\.log\)$", states["run02"][1])
    assert log(failing, "run02").count("training broke down") == 4  # it was queued again three times
    assert "run02: not measured yet" in failing.runs("collect")
    assert results_committed(failing) == 1

    assert follow(limited, cluster)["run03"][0] == "done"
    logs = (limited.folder / ".ckpt/slurm/embedded").glob("*.log")
    assert any("the time limit is near; queued again" in each.read_text() for each in logs)


def test_four_runs_over_two_nodes_one_of_them_killed(cluster: Cluster, checkout, chronicle):
    here = checkout("killed")
    chronicle += ["", "## One node killed", "", "| after | run | state | detail |", "|---|---|---|---|"]
    before: States = {}
    lost: list[str] = []

    def watch(seconds: float, states: States) -> None:
        news: dict[tuple[str, str], list[str]] = {}
        for run, (state, detail) in states.items():
            if stage(before.get(run, ("", ""))[1]) != stage(detail):
                news.setdefault((state, detail), []).append(run)
        for (state, detail), runs in news.items():
            chronicle.append(f"| {clock(seconds)} | {', '.join(runs)} | {state} | {detail} |")
        before.update(states)
        if not lost:
            for run, (_, detail) in states.items():
                update = re.match("finetune, update ([0-9]+) of .* on n2", detail)
                if update and int(update[1]) >= 4:
                    lost.append(run)
                    cluster.kill_node("n2")
                    chronicle.append(f"| {clock(seconds)} | **n2 is killed**, with all that runs on it | | |")
        elif cluster.daemons["n2"].poll() is not None and "down" in cluster.states()["n2"]:
            cluster.start_node("n2")
            chronicle.append(f"| {clock(seconds)} | n2 was found to be down; it is started again | | |")

    here.runs("submit", *RUNS)
    states = follow(here, cluster, watch)
    assert {state for state, _ in states.values()} == {"done"}
    assert "going on from" in log(here, lost[0])
    for run in RUNS:  # each stage of each run was done once, but for the one that was cut short
        again = 2 if run == lost[0] else 1
        assert log(here, run).count("Running stage 'finetune'") == again
        assert log(here, run).count("finetune: 32 rows") == 1
        assert not re.search("Running stage '(prepare|.*@base)'", log(here, run))
    assert results_committed(here) == len(RUNS)

    kept = headlines(here)
    assert sorted(kept) == list(RUNS)
    here.run("git", "reset", "--quiet", "--hard", f"HEAD~{len(RUNS)}")
    for _ in range(2):  # from the experiments alone, and no commit is made twice
        here.runs("collect")
        assert results_committed(here) == len(RUNS)
    assert headlines(here) == kept
    said = here.runs("submit", *RUNS)
    assert (said.count("done, metrics/runs"), "then job" in said) == (len(RUNS), False)
    assert here.run("git", "status", "--porcelain") == ""
    chronicle += ["", "Results:", "", "```", here.runs("collect").strip(), "```"]


def test_two_nodes_are_faster_than_one(cluster: Cluster, checkout, chronicle):
    took, found = {}, {}
    for partition in ("both", "one"):
        here, running = checkout(partition), []  # the seconds from when what all runs share was done

        def watch(seconds: float, states: States, running: list[float] = running) -> None:
            if running or any(state == "running" for state, _ in states.values()):
                running.append(seconds)

        here.runs("submit", *SHORT, "--partition", partition)
        states = follow(here, cluster, watch, every=15)  # asking takes a processor that a node needs
        took[partition] = running[-1] - running[0]
        assert {run: state for run, (state, _) in states.items()} == dict.fromkeys(SHORT, "done")
        found[partition] = headlines(here)
    assert found["both"] == found["one"]
    chronicle += [
        "",
        "## Time",
        "",
        f"{' and '.join(SHORT)}, after what they share, and no node killed: {clock(took['one'])} on one node, "
        f"{clock(took['both'])} on two, {took['one'] / took['both']:.2f} times as fast. The results are the same.",
    ]
    assert took["one"] > 1.2 * took["both"]


def stage(detail: str) -> str:
    """A status without how far a stage is."""
    return re.sub(", (update|[0-9]+ batches) [a-z0-9 ]+", "", detail)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
