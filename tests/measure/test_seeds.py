"""Seeds and prompts both: by hand, and what must hold."""

import time

import numpy as np
import pytest
from scipy.stats import t

from stages.lib.measure.seeds import Spread, change_over_seeds
from stages.lib.measure.stats import paired_change


def trained(*safe, n=140):
    """One row of outcomes a seed, so many of them safe."""
    return np.array([[place < count for place in range(n)] for count in safe])


def test_four_trainings_of_one_configuration_spread_by_four_points():
    found = change_over_seeds(trained(129)[0], trained(89, 92, 80, 94))
    assert 100 * found.after.sd == pytest.approx(4.4, abs=0.05)
    assert found.after.seeds == 4
    assert found.before is None
    assert found.value == pytest.approx((89 + 92 + 80 + 94) / 560 - 129 / 140)


def test_the_interval_by_hand():
    before = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    after = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    found = change_over_seeds(before, after)
    changes = [0, 0.5, 1, 0.5, -1, 1]  # of the prompts, with one lost and one won
    of_prompts, of_seeds = np.var(changes, ddof=1) / 6, 2 * 0.125**2  # sd 0.177 over two seeds, either side
    error = (of_prompts + of_seeds) ** 0.5
    freedom = error**4 / (of_prompts**2 / 5 + 2 * 0.125**4)
    half = t.ppf(0.975, freedom) * error
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(np.mean(changes) - half)
    assert found.high == 1  # no change is larger
    assert found.of_training == pytest.approx(of_seeds / error**2)
    assert found.p == pytest.approx(2 * t.sf(np.mean(changes) / error, freedom))


def test_one_seed_says_nothing_of_training_unless_the_spread_is_known():
    base, once = trained(100)[0], trained(90)
    alone = change_over_seeds(base, once)
    assert (alone.value, alone.low, alone.high, alone.p, alone.of_training) == (pytest.approx(-1 / 14), *[None] * 4)
    known = change_over_seeds(base, once, known=Spread(0.044, 6))
    prompts = paired_change(base.tolist(), once[0].tolist())
    assert known.low < prompts.low
    assert known.high > prompts.high
    both = change_over_seeds(trained(100), once, known=Spread(0.044, 6))
    assert both.of_training > known.of_training > 0
    one_side = change_over_seeds(trained(100), trained(90, 96, 84), known=Spread(0.044, 6))
    assert (one_side.before, one_side.after.seeds) == (Spread(0.044, 6), 3)


def test_without_training_it_is_bonett_and_prices_interval():
    before, after = np.arange(400) < 300, np.arange(400) < 270
    found = change_over_seeds(before, after)
    centre = -30 / 402  # of 30 lost, and one prompt more of either kind
    half = 1.959964 * ((32 / 402 - centre**2) / 402) ** 0.5
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=5e-4)
    assert found.of_training == 0
    assert change_over_seeds(before, before).low < 0 < change_over_seeds(before, before).high


def test_groups_of_one_mind_count_as_one_prompt_each():
    rng = np.random.default_rng(1)
    before, after = rng.random((3, 60)) < 0.5, rng.random((3, 60)) < 0.6
    single, names = change_over_seeds(before, after), [str(n // 4) for n in range(240)]
    fourfold = change_over_seeds(np.repeat(before, 4, axis=1), np.repeat(after, 4, axis=1), names)
    assert (fourfold.low, fourfold.high, fourfold.p) == pytest.approx((single.low, single.high, single.p))
    alone = change_over_seeds(before, after, [str(n) for n in range(60)])
    assert (alone.low, alone.high) == pytest.approx((single.low, single.high))


def test_turned_round_and_at_other_levels():
    rng = np.random.default_rng(2)
    before, after = rng.random((3, 50)) < 0.5, rng.random((4, 50)) < 0.6
    there, back = change_over_seeds(before, after), change_over_seeds(after, before)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.p == pytest.approx(back.p)
    narrow = change_over_seeds(before, after, level=0.9)
    assert there.low < narrow.low < narrow.high < there.high


def test_six_seeds_of_1200_prompts_take_less_than_a_second():
    rng = np.random.default_rng(3)
    before, after = rng.random((6, 1200)) < 0.5, rng.random((6, 1200)) < 0.6
    start = time.monotonic()
    assert change_over_seeds(before, after) == change_over_seeds(before, after)
    assert time.monotonic() - start < 1


def test_unequal_lengths_are_refused():
    for before, after, groups in ((trained(5), trained(5, n=9), None), ([], [], None), (trained(5), trained(5), ["a"])):
        with pytest.raises(ValueError, match="same length"):
            change_over_seeds(before, after, groups)
