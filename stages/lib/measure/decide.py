"""Kept, broken or undecided: non-inferiority by one-sided bounds. No evidence is no pass. Pure.

A change of a share on the same prompts is held against a margin, a share against a limit. One-sided 95 % bounds decide:
`kept` if all that is plausible is allowed, `broken` if nothing of it is, else `undecided`, with the number of prompts
that would decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm, t

from stages.lib.measure.groups import ALONE, Bunching, bunching
from stages.lib.measure.power import POWER, prompts_wanted

Verdict = Literal["kept", "broken", "undecided"]


@dataclass(frozen=True)
class Decision:
    """low and high: the one-sided bounds (each by itself) of the change or share `value`. wanted: how many prompts such
    as these would decide in four of five tries (None: no number would). Of a change, if nothing truly changed and as
    many flip as did; where no more are wanted than were asked, it is the change seen that leaves it undecided."""

    verdict: Verdict
    value: float
    low: float
    high: float
    wanted: int | None


def decided(low: float, high: float, margin: float, any_fall: bool = False) -> Verdict:
    """What one-sided bounds of a change, from whatever method, say of a fall of up to `margin`. Broken is evidence of a
    fall beyond the margin, or with `any_fall` of any fall, which then goes before kept."""
    if high < (0 if any_fall else -margin):
        return "broken"
    return "kept" if low > -margin else "undecided"


def fall(
    before: Sequence[bool],
    after: Sequence[bool],
    margin: float,
    groups: Sequence[str] | None = None,
    any_fall: bool = False,
    level: float = 0.95,
) -> Decision:
    """Did a share fall by more than `margin` (0.05: five points) between two measurements of the same prompts?

    The rate of flips that `wanted` goes by is (flips + 1) / (n + 2), so that none seen is not none to come. Raises
    ValueError on unequal or zero lengths.
    """
    n = len(before)
    if n == 0 or n != len(after):
        raise ValueError(f"paired outcomes need the same length from 1 up, found {n} and {len(after)}")
    flips = np.subtract(after, before, dtype=float)
    bunch = bunching(flips, groups, (-1.0, 1.0))
    lost, gained = int((flips < 0).sum()), int((flips > 0).sum())
    low, high = change_bounds(lost, gained, n, level, bunch)
    wanted = prompts_wanted((lost + gained + 1) / (n + 2), margin, bunch.effect, level)
    return Decision(decided(low, high, margin, any_fall), (gained - lost) / n, low, high, wanted)


def change_bounds(lost: int, gained: int, n: int, level: float = 0.95, bunch: Bunching = ALONE) -> tuple[float, float]:
    """The lower and the upper one-sided bound of a paired change; with level 0.975 the two-sided 95 % interval.

    Tango's score interval (1998, Statist. Med. 17, 891-908) with half a prompt more that was lost and half one that was
    won (after Agresti and Min 2005, Statist. Med. 24, 729-740): the changes at which `score` is within the quantile. In
    groups, half a group more of either; counts are divided by the design effect (Rao and Scott 1992, Biometrics 48,
    577-585), and t of groups - 1 stands for z. One group says nothing: -1 to 1.
    """
    if bunch.freedom == 0:
        return -1.0, 1.0
    quantile, half = float(t.ppf(level, bunch.freedom)), bunch.size / 2
    counts = [(lost + half) / bunch.effect, (gained + half) / bunch.effect, (n + 2 * half) / bunch.effect]
    middle = (counts[1] - counts[0]) / counts[2]

    def bound(end: float, at: float) -> float:
        return float(brentq(lambda change: float(score(*counts, change)) - at, end, middle))

    return bound(-1 + 1e-9, quantile), bound(1 - 1e-9, -quantile)


def score(lost: Any, gained: Any, n: Any, change: float) -> Any:
    """Tango's score statistic of a true `change` of a paired share (after minus before): gained - lost - n * change, by
    its standard error at the most likely shares of flips that have this change; about normal if the change is true.
    Counts or arrays of counts, of any fraction above 0."""
    linear = (2 * n - gained + lost) * change - lost - gained
    against = (np.sqrt(linear**2 + 8 * n * lost * change * (1 - change)) - linear) / (4 * n)
    variance = n * (2 * against + change * (1 - change))
    return (gained - lost - n * change) / np.sqrt(np.maximum(variance, 1e-300))


def within(found: Sequence[bool], limit: float, groups: Sequence[str] | None = None, level: float = 0.95) -> Decision:
    """Is a share (of refusals, of unreadable verdicts) at most `limit`? By the bounds of `share_bounds`. `wanted` takes
    the share seen, with half a prompt more of either kind, for the true one; None where that is the limit itself.
    Raises ValueError on none."""
    n = len(found)
    if n == 0:
        raise ValueError("a share of no prompts")
    bunch = bunching(found, groups, (0.0, 1.0))
    k = sum(found)
    low, high = share_bounds(k, n, level, bunch)
    verdict: Verdict = "kept" if high <= limit else "broken" if low > limit else "undecided"
    true = (k + 0.5) / (n + 1)
    spread = norm.ppf(level) * (limit * (1 - limit)) ** 0.5 + norm.ppf(POWER) * (true * (1 - true)) ** 0.5
    wanted = int(np.ceil(bunch.effect * (spread / (true - limit)) ** 2)) if true != limit and 0 < limit < 1 else None
    return Decision(verdict, k / n, low, high, wanted)


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
