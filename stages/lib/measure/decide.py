"""Kept, broken or undecided: non-inferiority by one-sided bounds. No evidence is no pass. Pure.

A change of a share on the same prompts is held against a margin, a share against a limit. One-sided 95 % bounds decide:
`kept` if all that is plausible is allowed, `broken` if nothing of it is, else `undecided`, with the number of prompts
that would decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from stages.lib.measure.bounds import change_bounds, share_bounds
from stages.lib.measure.groups import bunching
from stages.lib.measure.power import POWER, prompts_wanted
from stages.lib.measure.stats import flips

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
    of = flips(before, after, groups)
    low, high = change_bounds(of.lost, of.gained, of.n, level, of.bunch)
    wanted = prompts_wanted((of.lost + of.gained + 1) / (of.n + 2), margin, of.bunch.effect, level)
    return Decision(decided(low, high, margin, any_fall), (of.gained - of.lost) / of.n, low, high, wanted)


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
