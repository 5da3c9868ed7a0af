"""Non-inferiority: bounds against their definition and published figures, verdicts by hand, error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from stages.lib.measure.bounds import change_bounds, score, share_bounds
from stages.lib.measure.decide import decided, fall, within
from stages.lib.measure.groups import Bunching

booleans = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def outcomes(lost, gained, n):
    """Before and after of n prompts of which so many were lost and won."""
    return [True] * lost + [False] * (n - lost), [False] * lost + [True] * gained + [False] * (n - lost - gained)


def test_the_score_is_tangos():
    # R's PropCIs::scoreci.mp(25, 28, 618) at 90 %: -0.0148 to 0.0247
    assert score(25, 28, 618, -0.0148) == pytest.approx(1.645, abs=0.005)
    assert score(25, 28, 618, 0.0247) == pytest.approx(-1.645, abs=0.005)
    assert score(4, 9, 50, 0) == pytest.approx((9 - 4) / 13**0.5)  # McNemar's, without correction


@pytest.mark.parametrize(("lost", "gained", "n", "change"), [(3, 5, 40, -0.1), (10, 1, 60, 0.05), (1, 1, 100, -0.02)])
def test_the_scores_standard_error_is_of_the_most_likely_flips(lost, gained, n, change):
    def unlikely(p_lost):
        p_gained = p_lost + change
        rest = 1 - p_lost - p_gained
        if min(p_lost, p_gained, rest) <= 0:
            return np.inf
        return -(lost * np.log(p_lost) + gained * np.log(p_gained) + (n - lost - gained) * np.log(rest))

    low, high = max(0, -change), (1 - change) / 2
    p_lost = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    error = (n * (2 * p_lost + change - change**2)) ** 0.5
    assert score(lost, gained, n, change) == pytest.approx((gained - lost - n * change) / error, rel=1e-4)


@given(booleans, st.floats(0.6, 0.99))
def test_bounds_are_where_the_score_meets_the_level(pairs, level):
    lost, gained = sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)
    low, high = change_bounds(lost, gained, len(pairs), level)
    assert -1 <= low < high <= 1
    at_low, at_high = (score(lost + 0.5, gained + 0.5, len(pairs) + 1, bound) for bound in (low, high))
    assert at_low == pytest.approx(-at_high)
    there, back = change_bounds(lost, gained, len(pairs), level), change_bounds(gained, lost, len(pairs), level)
    assert there[0] == pytest.approx(-back[1], abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "any_fall", "verdict"),
    [
        (-0.04, 0.02, False, "kept"),
        (-0.06, 0.02, False, "undecided"),
        (-0.2, -0.06, False, "broken"),
        (-0.04, -0.01, False, "kept"),
        (-0.04, -0.01, True, "broken"),
        (-0.2, -0.01, False, "undecided"),
        (-0.2, -0.01, True, "broken"),
        (-0.05, 0.05, False, "undecided"),
    ],
)
def test_what_bounds_say_of_a_margin_of_five_points(low, high, any_fall, verdict):
    assert decided(low, high, 0.05, any_fall) == verdict


def test_few_prompts_pass_nothing():
    assert fall(*outcomes(0, 0, 14), margin=0.05).verdict == "undecided"
    assert fall(*outcomes(5, 0, 14), margin=0.05).verdict == "broken"  # 92.9 to 57.1 %
    assert fall(*outcomes(25, 12, 140), margin=0.05).verdict == "undecided"  # 63.6 to 54.3 %
    assert fall(*outcomes(25, 12, 140), margin=0.05, any_fall=True).verdict == "broken"
    assert fall(*outcomes(120, 120, 1200), margin=0.05).verdict == "kept"
    assert fall(*outcomes(240, 60, 1200), margin=0.05).verdict == "broken"


def test_without_a_flip_sixty_prompts_keep_a_margin_of_five_points():
    # exactly: 0.95**59 < 0.05
    assert fall(*outcomes(0, 0, 59), margin=0.05).verdict == "undecided"
    assert fall(*outcomes(0, 0, 60), margin=0.05).verdict == "kept"


def test_how_many_prompts_would_decide():
    assert fall(*outcomes(14, 8, 112), margin=0.05).wanted == 499  # (z + z)^2 * 23 / 114 / 0.05^2
    assert fall(*outcomes(14, 8, 112), margin=0.10).wanted == 125
    assert fall(*outcomes(0, 0, 20), margin=0.05).wanted == 113  # one of 22, not none
    assert fall(*outcomes(0, 0, 50), margin=0.05).wanted == 59  # as many as decide where nothing flips
    assert fall(*outcomes(14, 8, 112), margin=0.0).wanted is None


def test_groups_without_a_flip_count_as_prompts():
    names = [str(place // 2) for place in range(100)]
    alone, grouped = fall(*outcomes(0, 0, 100), margin=0.05), fall(*outcomes(0, 0, 100), margin=0.05, groups=names)
    assert (alone.verdict, grouped.verdict) == ("kept", "undecided")
    assert grouped.wanted == 117  # twice the 58.4 of prompts alone
    assert fall(*outcomes(0, 0, 100), margin=0.05, groups=["one"] * 100).low == -1


@given(booleans)
def test_groups_of_one_are_none(pairs):
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    names = [str(place) for place in range(len(pairs))]
    assert fall(before, after, 0.1, names) == fall(before, after, 0.1)


def test_unequal_lengths_and_none_are_refused():
    with pytest.raises(ValueError, match="same length"):
        fall([True], [], 0.05)
    with pytest.raises(ValueError, match="no prompts"):
        within([], 0.05)


def test_a_share_against_its_limit():
    none = within([False] * 112, 0.03)  # Clopper and Pearson: 1 - 0.05^(1 / 112)
    assert (none.verdict, none.low, none.high) == ("kept", 0, pytest.approx(1 - 0.05 ** (1 / 112)))
    assert within([False] * 98, 0.03).verdict == "undecided"
    assert within([True] * 2 + [False] * 110, 0.03).verdict == "undecided"
    assert within([True] * 8 + [False] * 104, 0.03).verdict == "broken"
    assert within([True] * 11 + [False] * 31, 0.40).verdict == "kept"
    assert within([True] * 5, 1.0).verdict == "kept"


def test_the_number_of_prompts_that_a_share_wants():
    # 12.5 of 43 for 40 %: ((1.645 * 0.490 + 0.842 * 0.454) / 0.109)^2
    assert within([True] * 12 + [False] * 30, 0.40).wanted == 119
    assert within([True] * 12 + [False] * 30, 12.5 / 43).wanted is None


def test_a_share_in_groups_counts_as_korn_and_graubard_have_it():
    assert share_bounds(30, 100, bunch=Bunching(2.0, 2.0, 10**6)) == pytest.approx(share_bounds(15, 50), abs=1e-5)
    assert share_bounds(3, 10, bunch=Bunching(2.0, 10.0, 0)) == (0, 1)
    names = [str(place // 10) for place in range(200)]
    assert within([False] * 200, 0.03).verdict == "kept"
    assert within([False] * 200, 0.03, names).verdict == "undecided"  # 20 groups
