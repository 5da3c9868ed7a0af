"""What can be shown, against simulation's figures and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.measure.power import chance_to_show, change_to_show, holm_level, prompts_wanted
from stages.lib.measure.stats import corrected

pvalues = st.floats(0.0001, 1)


def test_the_chance_by_hand():
    # five flips, all one way: 5 / 6**0.5 is above 1.96, and 4 / 5**0.5 is not
    assert chance_to_show(5, 0.0, 0.5) == pytest.approx(0.5**5)
    assert chance_to_show(4, 0.0, 1.0) == 0
    # five, six or seven flips of seven, all one way; with one against, 5 / 8**0.5 is not above 1.96
    assert chance_to_show(7, 0.2, 0.3) == pytest.approx(0.5**7 + 7 * 0.5**6 * 0.3 + 21 * 0.5**5 * 0.3**2)
    assert chance_to_show(100, 0.0, 0.0) == 0


def test_what_140_prompts_of_which_12_flip_back_can_show():
    # a change of 10.7 points, which is about the least that is significant, is found in two of three tries
    assert chance_to_show(140, 12 / 140, 15 / 140) == pytest.approx(0.67, abs=0.01)
    assert chance_to_show(140, 12 / 140, 15 / 140, 0.05 / 4) == pytest.approx(0.45, abs=0.02)
    assert change_to_show(12, 13, 140) == pytest.approx(0.132, abs=0.003)
    assert change_to_show(13, 12, 140, holm_level([0.2, 0.5, 1.0])) == pytest.approx(0.161, abs=0.003)


def test_groups_show_as_much_as_the_prompts_they_count_for_and_few_prompts_nothing():
    assert change_to_show(10, 10, 200, effect=2) > change_to_show(10, 10, 200)
    assert change_to_show(5, 5, 100) - change_to_show(10, 10, 200, effect=2) == pytest.approx(0, abs=0.003)
    assert change_to_show(0, 0, 4) is None


def test_holms_level_by_hand():
    assert holm_level([]) == 0.05
    assert holm_level([0.2, 0.5, 1.0]) == pytest.approx(0.05 / 4)
    assert holm_level([0.2, 0.001, 1.0]) == pytest.approx(0.05 / 3)
    assert holm_level([0.001, 0.002, 0.003]) == pytest.approx(0.05)
    assert holm_level([0.001, 0.03, 0.03]) == pytest.approx(0.05 / 3)  # 0.03 is not below 0.05 / 3


@settings(max_examples=15, deadline=None)
@given(pvalues, st.lists(pvalues, max_size=5))
def test_holms_level_is_where_the_corrected_p_is_significant(p, others):
    assert (p < holm_level(others)) == (corrected([p, *others])[0] < 0.05)


def test_the_numbers_of_prompts_wanted():
    found = [prompts_wanted(flips, margin) for flips, margin in ((0.2, 0.05), (0.2, 0.1), (0.05, 0.05), (0.3, 0.05))]
    assert found == [495, 124, 124, 742]
    assert prompts_wanted(0.2, 0.05, level=0.975) == 628
    assert prompts_wanted(0.2, 0.05, effect=2) == 990
    assert prompts_wanted(0.0, 0.05) == 59
    assert prompts_wanted(0.2, 0) is None
