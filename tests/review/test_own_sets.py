"""A reader's own sets in a review and its gate, and in metrics/outcomes.csv, on outcomes that are written here."""

from dataclasses import replace

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.measure.outcomes import Outcome, from_csv, prompt_key, to_csv
from tests.conftest import MADE
from tests.review.test_comparison import PARAMS, revision
from tools.review.command import answer, contents, said_of
from tools.review.comparison import compare
from tools.review.gate import RULES, rulings, stopping
from tools.review.revisions import Revision

KINDS = {"sets.arc": "choice", "sets.lies": "judged"}


def with_sets(of: Revision, right: int = 60, safe: int = 70, **params) -> Revision:
    """With 100 questions of the set arc and 100 judged prompts of the set lies, of which the tuned model gets the first
    so many right or answers them safely; the untuned one 60 and 70."""
    rows = []
    for subject, first, second in (("base", 60, 70), ("tuned", right, safe)):
        for n in range(100):
            key = prompt_key(str(n))
            rows.append(Outcome(subject, "arc", f"arc/{n}", "", n < first, None, "", key))
            rows.append(Outcome(subject, "lies", f"lies/{n}", "", n < second, n < second, "", key))
    return replace(of, outcomes=[*of.outcomes, *rows], params={**PARAMS, **KINDS, **params})


def of_set(found, name):
    return {ruling.against: (ruling.rule, ruling.verdict) for ruling in rulings(found) if ruling.own == name}


def test_outcomes_of_own_sets_are_read_back_and_wrong_ones_refused():
    rows = with_sets(revision(asked=2)).outcomes
    text = to_csv(rows)
    assert from_csv(text, "outcomes.csv") == rows
    for old, new, said in (
        ("base,arc,arc/3,", "base,acr,arc/3,", "set: found 'acr', not one of 'math', 'hazards', 'benign'"),
        ("base,arc,arc/3,,1,,", "base,arc,arc/3,,,,", "benign prompts have no `good`"),
        ("base,lies,lies/3,,1,1,", "base,lies,lies/3,,1,,", "of one set, some lines have `refused` and some have not"),
        ("base,arc,arc/3,", "base,arc,arc/3,vcr", "hazard: found 'vcr'"),
        ("tuned,arc,arc/3,", "tuned,arc,arc/300,", "arc arc/3: not one line for base and one for tuned"),
    ):
        assert old in text
        with pytest.raises(BadInput, match=r"outcomes\.csv") as error:
            from_csv(text.replace(old, new), "outcomes.csv")
        assert said in str(error.value)


def test_own_sets_are_held_to_the_rules_of_accuracy_and_safety():
    same = compare(with_sets(revision()), with_sets(revision("HEAD")))
    assert of_set(same, "arc") == {"base": ("accuracy", "kept"), "untuned model": ("accuracy", "kept")}
    assert of_set(same, "lies") == {"base": ("safety", "kept"), "untuned model": ("safety", "kept")}
    lost = compare(with_sets(revision()), with_sets(revision("HEAD"), right=30, safe=40))
    assert set(of_set(lost, "arc").values()) == {("accuracy", "broken")}
    assert set(of_set(lost, "lies").values()) == {("safety", "broken")}
    assert [lost.measures[name].verdict for name in ("accuracy", "arc", "lies")] == ["no evidence", "worse", "worse"]
    found = rulings(lost)
    assert {said_of(ruling) for ruling in stopping(lost, found, ["accuracy"])} == {
        "arc against the base is broken",
        "arc against the untuned model is broken",
    }
    said = answer(lost, found, stopping(lost, found, RULES))
    assert said.startswith("Arc is worse (-30.0 points); lies is worse (-30.0 points)")
    facts = contents(lost, found, "review.html", (None, None))
    assert [row["tuned model"] for row in facts["measures"]][-2:] == ["arc", "lies"]
    flips = {row["set"]: row["worse"] for row in facts["flips"]}
    assert (flips["arc questions"], flips["lies prompts"]) == ("30 right to wrong", "30 safe to unsafe")


def test_a_new_set_is_held_against_the_untuned_model_alone_and_one_that_is_gone_stops():
    new = compare(revision(), with_sets(revision("HEAD"), right=30))
    assert of_set(new, "arc") == {"untuned model": ("accuracy", "broken")}
    assert of_set(new, "lies") == {"untuned model": ("safety", "kept")}
    assert "arc" not in new.measures
    gone = compare(with_sets(revision()), revision("HEAD"))
    assert {verdict for _, verdict in of_set(gone, "arc").values()} == {"not checked"}
    assert stopping(gone, rulings(gone), ["accuracy"])
    reference = compare(revision(), revision("HEAD"), with_sets(revision("v1")))
    assert of_set(reference, "lies")["reference"] == ("safety", "not checked")


@pytest.mark.parametrize(
    ("change", "compared"),
    [
        ({}, {"arc", "lies"}),
        ({"report.extraction": "flexible"}, {"arc", "lies"}),
        ({"gen_math.max_new_tokens": 9}, {"arc", "lies"}),  # a choice has one token
        ({"gen_safety.max_new_tokens": 9}, {"arc"}),
        ({"judge.controversial": "safe"}, {"arc"}),
        ({"sets.arc": "text"}, {"lies"}),
    ],
)
def test_what_makes_own_sets_other_measurements(change, compared):
    found = compare(with_sets(revision()), with_sets(revision("HEAD"), **change))
    assert {name for name in ("arc", "lies") if found.pairs[name]} == compared


def test_a_number_is_read_by_the_rule_and_ended_as_the_test_questions_are():
    number = {"sets.arc": "number"}
    for change in ({"report.extraction": "flexible"}, {"gen_math.max_new_tokens": 9}):
        found = compare(with_sets(revision(), **number), with_sets(revision("HEAD"), **number, **change))
        assert not found.pairs["arc"]
        assert of_set(found, "arc")["base"] == ("accuracy", "not checked")


def test_answers_that_were_not_made_alike_are_not_compared():
    made = [{"math.jsonl": MADE}, {"math.jsonl": MADE.model_copy(update={"content": "9" * 64})}]
    before, after = (replace(with_sets(revision()), made=each) for each in made)
    found = compare(before, after)
    assert (found.pairs["arc"], len(found.pairs["lies"])) == ([], 100)
