"""Score bounds of a paired change, and exact bounds of a share: for intervals, tests and decisions alike. Pure."""

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm, t

from stages.lib.measure.groups import ALONE, Bunching


def change_bounds(lost: int, gained: int, n: int, level: float = 0.95, bunch: Bunching = ALONE) -> tuple[float, float]:
    """The lower and the upper one-sided bound of a paired change; with level 0.975 the two-sided 95 % interval.

    Tango's score interval (1998, Statist. Med. 17, 891-908) with half a prompt more that was lost and half one that was
    won (after Agresti and Min 2005, Statist. Med. 24, 729-740): the changes at which `score` is within the quantile. In
    groups, half a group more of either; counts are divided by the design effect (Rao and Scott 1992, Biometrics 48,
    577-585), and t of groups - 1 stands for z. One group says nothing: -1 to 1.
    """
    if bunch.freedom == 0:
        return -1.0, 1.0
    quantile, counts = float(t.ppf(level, bunch.freedom)), _counts(lost, gained, n, bunch)
    middle = (counts[1] - counts[0]) / counts[2]

    def bound(end: float, at: float) -> float:
        return float(brentq(lambda change: float(score(*counts, change)) - at, end, middle))

    return bound(-1 + 1e-9, quantile), bound(1 - 1e-9, -quantile)


def change_p(lost: int, gained: int, n: int, bunch: Bunching = ALONE) -> float:
    """Two-sided p of no change, by the same score: below 0.05 where, and only where, the 95 % interval excludes 0. It
    is McNemar's test with one prompt more that flipped: |gained - lost| / sqrt(lost + gained + 1)."""
    if bunch.freedom == 0:
        return 1.0
    return 2 * float(t.sf(abs(score(*_counts(lost, gained, n, bunch), 0.0)), bunch.freedom))


def _counts(lost: int, gained: int, n: int, bunch: Bunching) -> tuple[float, float, float]:
    half = bunch.size / 2
    return (lost + half) / bunch.effect, (gained + half) / bunch.effect, (n + 2 * half) / bunch.effect


def score(lost: Any, gained: Any, n: Any, change: float) -> Any:
    """Tango's score statistic of a true `change` of a paired share (after minus before): gained - lost - n * change, by
    its standard error at the most likely shares of flips that have this change; about normal if the change is true.
    Counts or arrays of counts, of any fraction above 0."""
    linear = (2 * n - gained + lost) * change - lost - gained
    against = (np.sqrt(linear**2 + 8 * n * lost * change * (1 - change)) - linear) / (4 * n)
    variance = n * (2 * against + change * (1 - change))
    return (gained - lost - n * change) / np.sqrt(np.maximum(variance, 1e-300))


def share_bounds(k: int, n: int, level: float = 0.95, bunch: Bunching = ALONE) -> tuple[float, float]:
    """The one-sided bounds of k of n (Clopper and Pearson 1934, Biometrika 26, 404-413), which err in no more than 5 %;
    Wilson's, one-sided, in up to 14 %. In groups, of the effective numbers of Korn and Graubard (1998, Survey
    Methodology 24, 193-201): n by the design effect, times (z / t of groups - 1)^2. One group says nothing: 0 to 1."""
    if bunch.freedom == 0:
        return 0.0, 1.0
    factor = (norm.ppf(level) / t.ppf(level, bunch.freedom)) ** 2 / bunch.effect
    true, false = k * factor, (n - k) * factor
    low = float(beta.ppf(1 - level, true, false + 1)) if k else 0.0
    return low, float(beta.ppf(level, true + 1, false)) if k < n else 1.0
