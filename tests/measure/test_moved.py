"""The mean of divergences over prompts: its interval covers as often as it says, and its edges."""

import numpy as np
import pytest

from stages.lib.measure.moved import Mean, mean_over_prompts


def test_the_mean_is_the_mean_and_the_interval_covers_it():
    rng = np.random.default_rng(5)
    covered, trials = 0, 200
    for _ in range(trials):
        found = mean_over_prompts(rng.gamma(2.0, 0.1, 42).tolist())
        covered += found.low <= 0.2 <= found.high
    assert 0.88 <= covered / trials <= 0.99
    values = [0.1, 0.2, 0.3, 0.6]
    found = mean_over_prompts(values)
    assert (found.value, found.n) == (pytest.approx(0.3), 4)
    assert min(values) <= found.low < 0.3 < found.high <= max(values)
    assert mean_over_prompts(values) == found


def test_none_of_none_and_no_width_where_nothing_moved():
    assert mean_over_prompts([]) is None
    assert mean_over_prompts([0.1]) is None
    assert mean_over_prompts([0.0] * 14) == Mean(0.0, 0.0, 0.0, 14)
