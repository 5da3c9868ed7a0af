"""Intervals and tests against textbook values and against scipy and statsmodels."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from stages.lib.measure.agreement import judge_agreement, kappa
from stages.lib.measure.bounds import change_p, score
from stages.lib.measure.stats import (
    corrected,
    is_evidence,
    paired,
    paired_change,
    retention,
    retention_change,
    share,
)

booleans = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def test_share_has_the_wilson_interval():
    # Newcombe 1998, Statist. Med. 17, table I: 81 of 263, and 0 of 20, method 3 (Wilson)
    some = share([True] * 81 + [False] * 182)
    assert (round(some.low, 4), round(some.high, 4), some.n) == (0.2553, 0.3662, 263)
    none = share([False] * 20)
    assert (round(none.low, 4), round(none.high, 4)) == (0.0, 0.1611)
    assert share([]) is None


def test_a_pair_has_both_shares_and_the_change_between_them():
    before, after, groups = [True] * 6 + [False] * 4, [True] * 3 + [False] * 7, [str(n // 2) for n in range(10)]
    pair = paired(before, after, groups)
    assert (pair.before, pair.after) == (share(before, groups), share(after, groups))
    assert pair.change == paired_change(before, after, groups) != paired_change(before, after)
    with pytest.raises(ValueError, match="same length"):
        paired([], [])


def test_evidence_begins_below_one_in_twenty():
    assert is_evidence(0.0499)
    assert not is_evidence(0.05)


def test_paired_change_of_equal_outcomes_is_no_evidence_but_no_certainty():
    change = paired_change([True, False] * 50, [True, False] * 50)
    assert (change.value, change.p, change.lost, change.gained) == (0, 1.0, 0, 0)
    assert change.low < 0 < change.high


def test_paired_change_by_hand():
    before, after = [True] * 10 + [False] * 90, [False] * 10 + [False] * 88 + [True] * 2
    change = paired_change(before, after)
    assert (change.lost, change.gained, change.value) == (10, 2, pytest.approx(-0.08))
    assert change.p == pytest.approx(2 * norm.sf(8 / 13**0.5))  # 12 flips, and half a prompt more of either kind
    # Tango 1998: the score of 10.5 lost and 2.5 gained of 101 meets 1.96 at both ends
    for bound in (change.low, change.high):
        assert abs(score(10.5, 2.5, 101, bound)) == pytest.approx(norm.ppf(0.975), abs=1e-6)


@given(booleans)
def test_interval_and_p_never_disagree(pairs):
    change = paired_change([b for b, _ in pairs], [a for _, a in pairs])
    assert is_evidence(change.p) == (change.low > 0 or change.high < 0)
    assert -1 <= change.low <= change.high <= 1


def test_p_is_near_the_mid_p_of_mcnemars_exact_test():
    """Which counts by half what was seen, and errs less on the safe side."""
    for flips in range(8, 60):
        for lost in range((flips + 1) // 2):
            exact = mcnemar([[0, lost], [flips - lost, 0]], exact=True).pvalue
            mid = exact - binom.pmf(lost, flips, 0.5)
            assert change_p(lost, flips - lost, 100) == pytest.approx(mid, abs=0.06)


@given(booleans)
def test_swapping_before_and_after_turns_the_change_round(pairs):
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    there, back = paired_change(before, after), paired_change(after, before)
    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high)
    assert there.p == pytest.approx(back.p)


def test_retention_counts_only_what_was_safe_before():
    kept = retention([True, True, True, False], [True, False, True, True])
    assert (kept.value, kept.n) == (pytest.approx(2 / 3), 3)
    assert retention([False, False], [True, False]) is None


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="same length"):
        paired_change([True], [])


def test_retention_change_finds_a_loss_and_gives_none_where_nothing_was_safe():
    safe = [True] * 100
    kept_80, kept_60 = [True] * 80 + [False] * 20, [True] * 60 + [False] * 40
    found = retention_change(safe, kept_80, safe, kept_60)
    assert found.value == pytest.approx(-0.2)
    assert -0.31 < found.low < -0.2 < found.high < -0.09  # 20 of 100 lost, none won: standard error 4 points
    same = retention_change(safe, kept_80, safe, kept_80)
    assert (same.value, same.p) == (0, None)
    assert same.low < 0 < same.high
    assert retention_change([False] * 9, kept_80[:9], safe[:9], kept_60[:9]) is None
    assert retention_change([], [], [], []) is None


def test_retention_change_is_the_same_twice_and_turns_round():
    base, one, two = [True] * 30, [True] * 20 + [False] * 10, [True] * 25 + [False] * 5
    assert retention_change(base, one, base, two) == retention_change(base, one, base, two)
    there, back = retention_change(base, one, base, two), retention_change(base, two, base, one)
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high, abs=0.02)


def test_holms_correction_by_hand():
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([]) == []


def test_kappa_of_two_readers():
    # Cohen 1960: po = 0.7, pe = 0.5
    first = [True] * 50 + [False] * 50
    second = [True] * 35 + [False] * 15 + [True] * 15 + [False] * 35
    found = kappa(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert kappa([True] * 9, [True] * 9) is None
    few = kappa([True, True, False], [True, True, False])
    assert few.value == few.high == 1
    assert few.low < 0.8  # three responses are no certainty


def test_a_judges_errors_are_weighed_by_how_often_it_gives_each_verdict():
    # 90 judged safe and 10 unsafe; of ten read of each, one safe is unsafe and two unsafe are safe
    verdicts = [True] * 90 + [False] * 10
    read = [(True, True)] * 9 + [(True, False)] + [(False, False)] * 8 + [(False, True)] * 2
    found = judge_agreement(verdicts, read)
    assert found.safe.value == pytest.approx(0.9 * 0.9 + 0.1 * 0.2)
    assert found.false_safe.value == pytest.approx(0.09 / 0.17)
    assert found.false_unsafe.value == pytest.approx(0.02 / 0.83)
    agree, chance = 0.81 + 0.08, 0.9 * 0.83 + 0.1 * 0.17
    assert found.kappa.value == pytest.approx((agree - chance) / (1 - chance))
    assert found.safe.low < 0.83 < found.safe.high
    assert found.n == 20


def test_agreement_on_everything_read_is_no_certainty_and_a_verdict_unread_is_no_answer():
    verdicts = [True] * 50 + [False] * 50
    found = judge_agreement(verdicts, [(True, True)] * 5 + [(False, False)] * 5)
    assert found.kappa.value == 1
    assert found.kappa.low < 0.7
    assert judge_agreement(verdicts, [(True, True)] * 5) is None
    assert judge_agreement([True] * 50, []) is None
    all_safe = judge_agreement([True] * 50, [(True, True)] * 5)
    assert all_safe.safe.value == 1
    assert all_safe.kappa is None
    assert all_safe.false_safe is None


@given(st.integers(0, 30), st.integers(0, 30), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_agreement_stays_within_its_bounds(safe, unsafe, read):
    found = judge_agreement([True] * safe + [False] * unsafe, read) if safe + unsafe else None
    if found:
        for estimate in (found.false_safe, found.false_unsafe, found.safe):
            assert estimate is None or 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_prompts_in_groups_count_as_what_they_are():
    # ten groups of five: in three of them all five are won, nowhere else anything changes
    before, groups = [False] * 50, [f"template {n // 5}" for n in range(50)]
    after = [n < 15 for n in range(50)]
    alone, grouped = paired_change(before, after), paired_change(before, after, groups)
    assert grouped.value == alone.value == pytest.approx(0.3)
    assert (is_evidence(alone.p), is_evidence(grouped.p)) == (True, False)
    # every group of one mind: as ten prompts of which three were won
    few = paired_change([False] * 10, [True] * 3 + [False] * 7)
    assert grouped.p == pytest.approx(few.p, abs=0.06)
    assert (grouped.low < few.low, grouped.high > few.high) == (True, True)  # t of 9 for z


def test_groups_of_one_are_no_groups_and_one_group_says_nothing():
    before, after = [False] * 8 + [True] * 2, [True] * 4 + [False] * 4 + [True, False]
    alone = paired_change(before, after)
    assert paired_change(before, after, [str(n) for n in range(10)]) == alone
    of_one = paired_change(before, after, ["one"] * 10)
    assert (of_one.value, of_one.low, of_one.high, of_one.p) == (alone.value, -1, 1, 1)


def test_a_share_in_groups_of_one_mind_counts_them():
    outcomes, names = [n // 4 < 30 for n in range(400)], [str(n // 4) for n in range(400)]
    found = share(outcomes, names)
    low, high = proportion_confint(30, 100, alpha=0.0472, method="wilson")
    assert (found.value, found.n) == (0.3, 400)
    assert found.low == pytest.approx(0.217, abs=0.002)  # z 1.984, t of 99, for 1.960
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


def test_nothing_seen_is_as_sure_as_there_are_groups():
    names = [str(n // 10) for n in range(200)]
    assert share([False] * 200, names).high == pytest.approx(2.093**2 / (20 + 2.093**2), abs=1e-3)
    assert share([True, False], ["a", "a"]).high == 1


def test_the_interval_of_grouped_prompts_holds_the_truth_about_as_often_as_it_says():
    rng, held, tries = random.Random(3), 0, 400
    for _ in range(tries):
        before, after, groups = [], [], []
        for group in range(40):
            learned = rng.random() < 0.5
            for _ in range(3):
                before.append(rng.random() < 0.2)
                after.append(rng.random() < (0.5 if learned else 0.1))
                groups.append(str(group))
        change = paired_change(before, after, groups)
        held += change.low <= 0.1 <= change.high
    assert 0.93 <= held / tries <= 0.99
