"""How far the tuned model has moved where nothing was taught: a mean over prompts, with an interval. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from stages.lib.measure.stats import ALPHA, DRAWS, SEED


@dataclass(frozen=True)
class Mean:
    """The mean of n values with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def mean_over_prompts(values: Sequence[float]) -> Mean | None:
    """Of each prompt's divergence in nats by the token; None of fewer than two. The interval is a bias-corrected and
    accelerated bootstrap over prompts (Efron 1987): divergences are positive and skewed."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    if min(values) == max(values):  # an adapter that does nothing: the bootstrap has nothing to draw from
        return Mean(mean, mean, mean, len(values))
    rng = np.random.default_rng(SEED)
    ends = bootstrap((values,), np.mean, n_resamples=DRAWS, confidence_level=1 - ALPHA, rng=rng).confidence_interval
    return Mean(mean, float(ends.low), float(ends.high), len(values))
