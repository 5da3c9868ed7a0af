"""A share in groups."""

import pytest
from statsmodels.stats.proportion import proportion_confint

from stages.lib.measure.shares import grouped_share
from stages.lib.measure.stats import share


def test_a_share_whose_prompts_stand_alone_is_the_wilson_share():
    outcomes = [True] * 28 + [False] * 52
    found, alone = grouped_share(outcomes, [str(n) for n in range(80)]), share(outcomes)
    assert (found.value, found.n) == (alone.value, alone.n)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_groups_of_one_mind_count_as_one_row_each():
    outcomes, names = [n // 4 < 30 for n in range(400)], [str(n // 4) for n in range(400)]
    found = grouped_share(outcomes, names)
    low, high = proportion_confint(30, 100, alpha=0.0472 * 1.0, method="wilson")
    assert (found.value, found.n) == (0.3, 400)
    assert found.low == pytest.approx(0.217, abs=0.002)  # z 1.984, t of 99, for 1.960
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


def test_nothing_seen_is_as_sure_as_there_are_groups():
    names = [str(n // 10) for n in range(200)]
    assert grouped_share([False] * 200, names).high == pytest.approx(2.093**2 / (20 + 2.093**2), abs=1e-3)
    assert grouped_share([True, False], ["a", "a"]).high == 1
    assert grouped_share([], []) is None
