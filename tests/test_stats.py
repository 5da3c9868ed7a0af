"""Intervals and tests against textbook values and against scipy and statsmodels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from stages.lib.stats import paired_change, retention, share

booleans = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def test_share_has_the_wilson_interval():
    # Newcombe 1998, Statist. Med. 17, table I: 81 of 263, and 0 of 20, method 3 (Wilson)
    some = share([True] * 81 + [False] * 182)
    assert (round(some.low, 4), round(some.high, 4), some.n) == (0.2553, 0.3662, 263)
    none = share([False] * 20)
    assert (round(none.low, 4), round(none.high, 4)) == (0.0, 0.1611)
    assert share([]) is None


def test_paired_change_of_equal_outcomes_is_no_evidence_but_no_certainty():
    change = paired_change([True, False] * 50, [True, False] * 50)
    assert (change.value, change.p, change.lost, change.gained) == (0, 1.0, 0, 0)
    assert change.low < 0 < change.high


def test_paired_change_by_hand():
    before, after = [True] * 10 + [False] * 90, [False] * 10 + [False] * 88 + [True] * 2
    change = paired_change(before, after)
    assert (change.lost, change.gained, change.value) == (10, 2, pytest.approx(-0.08))
    # Bonett and Price: p_lost = 11/102, p_gained = 3/102
    centre, spread = -8 / 102, ((14 / 102 - (8 / 102) ** 2) / 102) ** 0.5
    assert change.low == pytest.approx(centre - 1.959964 * spread, abs=1e-6)
    assert change.high == pytest.approx(centre + 1.959964 * spread, abs=1e-6)


@given(booleans)
def test_p_is_mcnemars_exact_test(pairs):
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    change = paired_change(before, after)
    table = [[sum(b and a for b, a in pairs), change.lost], [change.gained, sum(not b and not a for b, a in pairs)]]
    assert change.p == pytest.approx(min(1.0, mcnemar(table, exact=True).pvalue))
    assert -1 <= change.low <= change.high <= 1


@given(booleans)
def test_swapping_before_and_after_turns_the_change_round(pairs):
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    there, back = paired_change(before, after), paired_change(after, before)
    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high)
    assert there.p == back.p


def test_retention_counts_only_what_was_safe_before():
    kept = retention([True, True, True, False], [True, False, True, True])
    assert (kept.value, kept.n) == (pytest.approx(2 / 3), 3)
    assert retention([False, False], [True, False]) is None


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="same length"):
        paired_change([True], [])
