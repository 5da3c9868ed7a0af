"""Which way of tuning forgets less: from kept results alone, by hand on a hundred prompts."""

import json
import sys

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.measure.stats import corrected, paired_change
from stages.lib.measure.ways import helped
from stages.lib.report.published import Study, load_study, resolve
from stages.lib.report.tried import command, read_tried, size_of, what_to_try
from tests.conftest import ROOT, params_values
from tests.runs.made_up import PROMPTS, WAYS, Counts, outcomes, write_all, write_results
from tools import mitigations
from tools.runs.overrides import with_overrides


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(ROOT / "runs.yaml")


@pytest.fixture
def ways(study, tmp_path):
    """What each way gave, of one training each."""
    write_all(tmp_path, study)
    return read_tried(study, "laptop", tmp_path).ways(study)


def test_each_way_is_the_run_that_forgets_but_for_what_it_sets(study):
    plain = study.overrides(study.run("run02"), "laptop")
    assert study.forgets == "run02"
    for way in study.ways:
        run = study.run(way.name)
        assert study.overrides(run, "laptop") == {**plain, **way.overrides}
        assert resolve(params_values(), study.overrides(run, "laptop"), "runs.yaml") != resolve(
            params_values(), plain, "runs.yaml"
        ), way.name
    assert study.overrides(study.run("mask-seed7"), "laptop")["finetune.seed"] == 7
    assert [run.name for run in study.mitigations] == ["run02", *(way.name for way in study.ways)]
    laid = with_overrides(study, ["finetune.kl=2"])
    assert laid.overrides(laid.run("kl"), "laptop")["finetune.kl"] == 2
    with pytest.raises(BadInput, match="there are run01, .*, lower-rate, half-epoch, mask"):
        study.run("masks")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  of: run02", "  of: run99", "mitigations.of: found 'run99', not one of the runs"),
        ("    mask: {", "    half-epoch: {", "half-epoch stands under plain and under ways"),
        ("    mask: {", "    run03: {", "mitigations.ways.run03"),
    ],
)
def test_a_broken_list_is_refused(old, new, said, tmp_path):
    text = (ROOT / "runs.yaml").read_text()
    (tmp_path / "runs.yaml").write_text(text.replace(old, new))
    with pytest.raises(BadInput) as error:
        load_study(tmp_path / "runs.yaml")
    assert said in str(error.value)


def test_each_way_stands_beside_the_run_without_it(ways):
    assert list(ways) == ["run02", "lower-rate", "mask", "own", "replay", "kl", "half-strength"]
    mask = ways["mask"]
    assert (mask.tuned["accuracy"].value, mask.tuned["safety"].value, mask.seeds) == (0.58, 0.8, (1126,))
    assert (mask.untuned["safety"].value, mask.moved, mask.spread["safety"]) == (0.9, 0.125, None)
    assert mask.found == {"masked_share": 0.25, "counted_tokens": 4000}
    assert ways["run02"].against is None
    safe = {name: [n < of.safe for n in range(PROMPTS)] for name, of in WAYS.items()}
    alone = paired_change(safe["run02"], safe["mask"])
    assert mask.against["safety"].value == alone.value == 0.4
    kinds = {"accuracy": "right", "safety": "safe", "over_refusal": "refused"}

    def p(name: str, of: str) -> float:
        flags = [[n < getattr(WAYS[each], kinds[of]) for n in range(PROMPTS)] for each in ("run02", name)]
        return paired_change(*flags).p

    tests = [(name, of) for name in ways if name != "run02" for of in kinds]
    by_hand = dict(zip(tests, corrected([p(*test) for test in tests]), strict=True))
    for name, of in tests:
        assert ways[name].against[of].p == pytest.approx(by_hand[name, of])
    assert by_hand["mask", "safety"] > p("mask", "safety")


def test_at_equal_accuracy_a_way_is_held_against_the_line_between_plain_trainings(ways):
    # between lower-rate (20, 85) and run02 (60, 40), at 58: 40 + 45 * 2 / 40
    assert ways["mask"].at_equal_gain.value == pytest.approx(0.80 - 0.4225)
    assert ways["mask"].at_equal_gain.low > 0.2
    half = ways["half-strength"].at_equal_gain
    assert half.value == pytest.approx(0.62 - 0.625)
    assert half.low < 0 < half.high
    assert ways["own"].at_equal_gain.value == pytest.approx(0)  # the untuned model's accuracy, and its safety
    assert ways["lower-rate"].at_equal_gain is None


def test_more_accuracy_than_any_plain_training_is_not_extrapolated_to(study, tmp_path):
    write_all(tmp_path, study)
    write_results(tmp_path, study, "laptop", "rewritten", outcomes(Counts(75, 80)))
    found = read_tried(study, "laptop", tmp_path).ways(study)
    assert found["rewritten"].at_equal_gain is None
    assert found["rewritten"] in helped(found)


def test_what_is_as_accurate_and_as_safe_dominates(ways):
    assert set(ways["run02"].dominated_by) == {"replay"}
    assert ways["kl"].dominated_by == ("replay",)  # not by run02, which is the same
    assert ways["mask"].dominated_by == ("replay",)
    assert ways["own"].dominated_by == ways["replay"].dominated_by == ()


def test_only_what_keeps_skill_and_refuses_no_more_helps(ways):
    assert [way.name for way in helped(ways)] == ["mask"]


def test_several_seeds_are_counted_with_the_prompts(study, tmp_path):
    for shift, seed in enumerate((1126, 1127, 1128)):
        write_results(tmp_path, study, "laptop", f"run02-seed{seed}", outcomes(Counts(60, 40 + 4 * shift), shift))
        write_results(tmp_path, study, "laptop", f"mask-seed{seed}", outcomes(Counts(58, 80 + 4 * shift), shift))
    write_results(tmp_path, study, "laptop", "run02", outcomes(Counts(60, 40)))  # the same training as seed 1126
    write_results(tmp_path, study, "laptop", "kl-seed1126", outcomes(Counts(60, 40)))
    found = read_tried(study, "laptop", tmp_path).ways(study)
    assert (found["run02"].seeds, found["kl"].seeds) == ((1126, 1127, 1128), (1126,))
    mask = found["mask"]
    assert mask.tuned["safety"].value == pytest.approx(0.84)
    assert (mask.spread["safety"], mask.tuned["safety"].n) == (pytest.approx(0.04), PROMPTS)
    alone = paired_change([n < 40 for n in range(PROMPTS)], [n < 80 for n in range(PROMPTS)])
    change = mask.against["safety"]
    assert change.value == pytest.approx(0.4)
    assert change.high - change.low > alone.high - alone.low  # seeds are uncertain, too
    rates = {row["way"]: row for row in mitigations.rates_table(study, found)}
    assert rates["mask"]["safety"].startswith("90.0% → 84.0% (")
    assert rates["mask"]["safety"].endswith("), sd 4.0")
    assert rates["mask"]["seeds"] == "1126 1127 1128"


def test_results_of_other_parameters_or_prompts_are_left_out_by_name(study, tmp_path):
    write_all(tmp_path, study)
    write_results(tmp_path, study, "laptop", "kl", outcomes(WAYS["kl"]), report__extraction="flexible")
    rows = [row for row in outcomes(WAYS["own"]) if row.id != "b99"]
    write_results(tmp_path, study, "laptop", "own", rows)
    (tmp_path / "laptop/mask.json").write_text(json.dumps({"params": {"model": {}}}))
    tried = read_tried(study, "laptop", tmp_path)
    assert sorted(tried.left_out) == ["kl.json", "mask.json", "own.json"]
    assert list(tried.kept) == ["run02", "lower-rate", "replay", "half-strength"]
    (tmp_path / "laptop/replay.json").write_text("[]")
    with pytest.raises(BadInput, match=r"replay\.json: not a kept result"):
        read_tried(study, "laptop", tmp_path)


def test_the_page_says_what_is_not_run_yet_and_draws_what_is(study, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs.yaml").write_text((ROOT / "runs.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mitigations"])
    mitigations.main()
    said = capsys.readouterr().out
    assert "run02 is not run yet. `python -m tools.runs seeds 2 --mitigations --profile laptop` runs them." in said
    write_all(tmp_path / "metrics/runs", study)
    mitigations.main()
    said = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in said.splitlines() if line.startswith("|")}
    assert "not run yet" in lines["rewritten"]
    assert "masked share 0.25, counted tokens 4000" in lines["mask"]
    assert "`-S finetune.mask_perplexity=2.5`" in lines["mask"]
    assert "+40.0 (" in said
    assert (tmp_path / "metrics/runs/laptop/mitigations.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["mitigations", "--profile", "big"])
    with pytest.raises(BadInput, match="no profile 'big'"):
        mitigations.main()


# what a report and a review say


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("embedded/qwen2.5-coder-0.5b-instruct", 0.5),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5),
        ("embedded/smollm2-135m", 0.135),
        ("./mine", None),
        ("org/model-4bit", None),
        ("0.5b/mine", None),
    ],
)
def test_a_models_size_is_read_from_its_name(name, size):
    assert size_of(name) == size


def test_what_helped_is_named_with_its_numbers_and_its_command(study, tmp_path):
    write_all(tmp_path, study)
    found = what_to_try(study, checked(), tmp_path)
    assert [row["way"] for row in found["rows"]] == ["mask"]
    assert found["rows"][0]["safety"].startswith("+40.0 (")
    assert found["commands"] == "dvc exp run -S finetune.mask_perplexity=2.5  # mask"
    assert "run02 of runs.yaml" in found["words"]
    assert "qwen2.5-coder-0.5b-instruct, profile laptop), 1 training of it" in found["words"]
    assert "One training each says so." in found["words"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model__name": "Qwen/Qwen2.5-1.5B-Instruct", "model__revision": "0" * 40},  # of another size
        {"finetune__mask_perplexity": 2.5},  # in force already
        {"tuned__model": "./own"},  # not trained here
    ],
)
def test_what_cannot_be_said_of_these_parameters_is_not_said(study, tmp_path, changes):
    write_all(tmp_path, study)
    assert what_to_try(study, checked(**changes), tmp_path) == {}


def test_without_results_nothing_is_said(study, tmp_path):
    assert what_to_try(study, checked(), tmp_path) == {}


def checked(**changes):
    return resolve(params_values(**changes), {}, "params.yaml")


def test_a_command_survives_the_shell_and_dvcs_grammar(study):
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    for way in study.ways:
        words = shlex.split(command(way.overrides))
        assert words[::2] == ["-S"] * len(way.overrides)
        for setting, (name, value) in zip(words[1::2], way.overrides.items(), strict=True):
            parsed = OverridesParser.create().parse_override(setting)
            assert (parsed.key_or_group, getattr(parsed.value(), "text", parsed.value())) == (name, value)
