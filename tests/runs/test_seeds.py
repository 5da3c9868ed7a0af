"""One configuration with several seeds: trained for real by a tiny model, kept, and used by report and review."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.measure.outcomes import Outcome, prompt_key, to_csv
from stages.lib.measure.trainings import configuration, others, over_seeds, read_training, spread_at_hand
from stages.lib.report.luck import one_training, seeds_table
from stages.lib.report.published import load_study
from tests.conftest import ROOT, params_values
from tests.faults.test_kills_dvc import ENVIRONMENT, ask, origin, run, said  # noqa: F401 - a fixture


def rows(safe: float, seed: int, n: int = 60) -> list[Outcome]:
    good = (np.random.default_rng(seed).random(n) < safe).tolist()
    tuned = [
        Outcome("tuned", "hazards", f"h{at}", "vcr", good[at], False, "", prompt_key(f"hazard {at}")) for at in range(n)
    ]
    return [*tuned, *(replace(row, subject="base", good=True) for row in tuned)]


def kept(seed: int, safe: float = 0.7, **changes):
    params = params_values(finetune__seed=seed, **changes)
    return read_training(json.dumps({"params": params}), to_csv(rows(safe, seed)), f"seed{seed}.json")


def of(subject: str, outcomes):
    return [row for row in outcomes if row.subject == subject]


def test_a_configuration_is_the_same_but_for_the_seed_and_what_decides_nothing():
    one, two = kept(1), kept(2, review__max_safety_drop=0.5, machine__processes=2)
    assert one.configuration == two.configuration == configuration(parse_params(params_values(), "params.yaml"))
    other = kept(3, lora__r=16)
    assert others([one, two, other], one.configuration, 1) == [two]
    assert read_training(json.dumps({"params": {"model": {}}}), "", "old.json") is None
    with pytest.raises(BadInput, match=r"broken\.json: not a kept result"):
        read_training("{", "", "broken.json")


def test_with_one_training_the_sentence_says_so_and_how_far_others_spread():
    own, groups = rows(0.6, 7), [f"h{n}" for n in range(60)]
    base, tuned = of("base", own), of("tuned", own)
    alone = over_seeds(base, tuned, groups, {"after": [], "known": []})
    assert (alone.before, alone.after, alone.many, alone.change.low) == (0, 1, False, None)
    words = one_training({"safety": alone})
    assert words.startswith("One training says so: how much of it is the luck of a seed is not known here;")
    assert seeds_table({"safety": alone}) == []
    known = [kept(seed, lora__r=16) for seed in (1, 2, 3)]
    spread = spread_at_hand(tuned, known)
    shares = [np.mean([row.good for row in of("tuned", each.outcomes)]) for each in known]
    assert (spread.seeds, spread.sd) == (3, pytest.approx(np.std(shares, ddof=1)))
    with_spread = over_seeds(base, tuned, groups, {"after": [], "known": known})
    assert not with_spread.many
    assert with_spread.change.low < with_spread.change.value < with_spread.change.high
    assert "One training says so. With the spread seen over 3 trainings, in points: safety rate" in one_training(
        {"safety": with_spread}
    )


def test_with_several_trainings_the_change_is_over_all_of_them():
    own, groups = rows(0.6, 7), [f"h{n}" for n in range(60)]
    more = [kept(seed) for seed in (1, 2, 3)]
    found = over_seeds(of("base", own), of("tuned", own), groups, {"after": more, "known": more})
    shares = [np.mean([row.good for row in of("tuned", each)]) for each in (own, *(each.outcomes for each in more))]
    assert (found.after, found.many) == (4, True)
    assert found.change.value == pytest.approx(np.mean(shares) - 1)
    assert one_training({"safety": found}) == ""
    (row,) = seeds_table({"safety": found})
    assert row["standard deviation over seeds, points"] == f"{100 * np.std(shares, ddof=1):.1f}"
    both = over_seeds(of("tuned", own), of("tuned", own), groups, {"before": [], "after": more, "known": more})
    assert not both.many  # one side was trained once
    unasked = [replace(more[0], outcomes=more[0].outcomes[1:])]
    assert over_seeds(of("base", own), of("tuned", own), groups, {"after": unasked, "known": []}).after == 1


def test_a_run_with_a_seed_is_that_run_but_for_the_seed():
    study = load_study(ROOT / "runs.yaml")
    plain, seeded = study.run("run02"), study.run("run02-seed7")
    assert study.overrides(seeded, "laptop") == {**study.overrides(plain, "laptop"), "finetune.seed": 7}
    assert study.overrides(study.run("default-seed7"), "default") == {"finetune.seed": 7}
    for name, profile in (("default-seed7", "laptop"), ("run02", "default")):
        with pytest.raises(BadInput, match="profile default is of the default run and its seeds alone"):
            study.overrides(study.run(name), profile)
    with pytest.raises(BadInput, match="no run 'run00'"):
        study.run("run00-seed7")


@pytest.mark.slow
def test_seeds_are_trained_kept_and_used(origin):  # noqa: F811
    command = ("python", "-m", "tools.runs", "seeds", "2")
    assert run(origin, command) == 0, said(origin)
    assert said(origin).count("Stage 'gen_math@base' is cached") == 1  # the untuned model was measured once
    results = sorted(path.name for path in (origin / "metrics/runs/default").glob("*.*"))
    assert results == ["README.md"] + [f"default-seed{1126 + n}.{end}" for n in (0, 1) for end in ("csv", "json")]
    assert ask(origin, "git", "status", "--porcelain", "--untracked-files=no") == ""
    assert run(origin, command) == 0, said(origin)
    assert said(origin).count(": done, metrics/runs/default/") == 2
    assert "| standard deviation |" in said(origin)
    assert run(origin, ("dvc", "repro")) == 0, said(origin)
    assert "Over prompts and training seeds both:" in (origin / "report/report.md").read_text()
    ask(origin, "git", "add", "--all")
    ask(origin, "git", "commit", "--quiet", "-m", "measured")
    assert run(origin, command) == 0, said(origin)  # a report of them decides no result
    assert said(origin).count(": done, metrics/runs/default/") == 4
    assert "Over prompts and training seeds both:" in ask(origin, "python", "-m", "tools.review", "--base", "HEAD")


@pytest.mark.slow
def test_mitigations_are_trained_kept_and_compared_whatever_stops_them(origin):  # noqa: F811
    folder = origin.parent / "mitigations"
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], env=ENVIRONMENT, check=True)
    study = YAML(typ="safe").load((folder / "runs.yaml").read_text())
    ways = {"mask": {"finetune.mask_perplexity": 50_000}, "half-strength": {"lora.strength": 0.5}}
    study["mitigations"] = {"of": "run02", "plain": {}, "ways": ways}
    with (folder / "runs.yaml").open("w") as file:
        YAML().dump(study, file)
    ask(folder, "git", "commit", "--quiet", "-am", "three mitigations")
    command = ("python", "-m", "tools.runs", "seeds", "2", "--mitigations", "--profile", "embedded")
    results = folder / "metrics/runs/embedded"
    log = (folder.parent / "killed.log").open("w")
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, start_new_session=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    while process.poll() is None and not ask(folder, "git", "ls-tree", "-r", "HEAD", "metrics/runs/embedded"):
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert run(folder, command) == 0, said(folder)
    assert "run02-seed1126-embedded: done, metrics/runs/embedded/run02-seed1126.json" in said(folder)
    names = [f"{name}-seed{seed}" for name in ("half-strength", "mask", "run02") for seed in (1126, 1127)]
    assert sorted(path.name for path in results.iterdir()) == [f"{of}.{end}" for of in names for end in ("csv", "json")]
    assert ask(folder, "git", "status", "--porcelain", "--untracked-files=no") == ""
    found = {name: json.loads((results / f"{name}.json").read_text()) for name in names}
    assert 0 < found["mask-seed1126"]["training"]["masked_share"] < 1
    assert found["run02-seed1126"]["training"] == found["half-strength-seed1127"]["training"] == {}
    assert all(each["moved"][0]["value"] > 0 for each in found.values())
    shown = ask(folder, "python", "-m", "tools.mitigations", "--profile", "embedded")
    assert "masked share" in shown
    assert "not run yet" not in shown
    assert (results / "mitigations.png").is_file()
