"""Design effects by hand, and what holds for any groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.measure.groups import ALONE, bunching, by_group

grouped = st.lists(st.tuples(st.sampled_from((-1, 0, 1)), st.sampled_from("abcdef")), min_size=1, max_size=60)


def test_the_design_effect_by_hand():
    # three groups of two, sums 2, 0 and 1; half a group of size 2 at either end: mean 3 / 8 + ... of 6 + 2 prompts
    found = bunching([1, 1, 0, 0, 0, 1], ["a", "a", "b", "b", "c", "c"], (0, 1))
    mean = (3 + 1) / 8
    between = 1**2 + 1**2 + 0 + 2**2 * (mean**2 + (1 - mean) ** 2) / 2
    alone = 6 * 0.25 + 2 * (mean**2 + (1 - mean) ** 2) / 2
    assert found.effect == pytest.approx(between / alone)
    assert (found.size, found.freedom) == (2, 2)


def test_where_nothing_differs_a_group_counts_as_one_prompt():
    names = [str(place // 4) for place in range(80)]
    assert bunching([0] * 80, names, (-1, 1)).effect == pytest.approx(4)
    of_one_mind = [float(place // 4 % 2) for place in range(80)]
    assert bunching(of_one_mind, names, (0, 1)).effect == pytest.approx(4)


def test_prompts_that_share_no_group_stand_alone():
    assert bunching([1, 0, 1], None, (0, 1)) == bunching([1, 0, 1], ["a", "b", "c"], (0, 1)) == ALONE
    assert bunching([1], ["a"], (0, 1)) == ALONE
    assert bunching([1, 0], ["a", "a"], (0, 1)).freedom == 0
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        bunching([1, 0, 1], ["a", "b"], (0, 1))


@given(grouped)
def test_the_design_effect_lies_between_one_and_the_largest_group(rows):
    names = [name for _, name in rows]
    found = bunching([value for value, _ in rows], names, (-1, 1))
    assert 1 <= found.effect <= max(map(names.count, names)) + 1e-9


def test_sums_by_group():
    assert by_group(np.array([1.0, 2, 3]), ["b", "a", "b"]).tolist() == [4, 2]
    assert by_group(np.array([[1.0, 2, 3], [0, 0, 1]]), ["b", "a", "b"]).tolist() == [[4, 2], [1, 0]]
