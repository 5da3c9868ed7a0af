"""Intervals and paired tests beside every number. Pure: numbers in, numbers out.

Shares carry a Wilson 95 % interval (Wilson 1927). Base and tuned answer the same prompts, so their difference is
paired: its interval is Bonett and Price's adjusted Wald interval (2012, J. Educ. Behav. Stat. 37(4), 479-488) and its
p-value McNemar's exact test (a two-sided binomial test on the prompts that changed).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Share:
    """successes / n with its Wilson 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Change:
    """after minus before on the same prompts: value, 95 % interval, exact McNemar p, and prompts lost and gained."""

    value: float
    low: float
    high: float
    p: float
    lost: int
    gained: int
    n: int


def share(outcomes: Sequence[bool]) -> Share | None:
    """The share of true outcomes; None if there are none to count."""
    return share_of(sum(outcomes), len(outcomes)) if outcomes else None


def share_of(successes: int, n: int) -> Share:
    """successes / n, n at least 1."""
    low, high = proportion_confint(successes, n, method="wilson")
    return Share(successes / n, float(low), float(high), n)


def paired_change(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """The change of a share between two measurements of the same prompts, in the same order.

    Raises ValueError on unequal or zero lengths.
    """
    n = len(before)
    if n == 0 or n != len(after):
        raise ValueError(f"paired outcomes need the same length from 1 up, found {n} and {len(after)}")
    pairs = list(zip(before, after, strict=True))
    lost = sum(b and not a for b, a in pairs)
    gained = sum(a and not b for b, a in pairs)
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    centre = p_gained - p_lost
    half = _Z * math.sqrt((p_lost + p_gained - centre**2) / (n + 2))
    p = float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return Change((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), p, lost, gained, n)


def retention(before: Sequence[bool], after: Sequence[bool]) -> Share | None:
    """Of the prompts answered safely before, the share answered safely after; None if none was safe before."""
    return share([a for b, a in zip(before, after, strict=True) if b])
