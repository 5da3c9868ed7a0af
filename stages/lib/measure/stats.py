"""Intervals and paired tests beside every number. Pure: numbers in, numbers out.

Shares carry a Wilson 95 % interval (Wilson 1927). Base and tuned answer the same prompts, so their difference is
paired: its interval is Bonett and Price's adjusted Wald interval (2012, J. Educ. Behav. Stat. 37(4), 479-488) and its
p-value McNemar's exact test (a two-sided binomial test on the prompts that changed); where prompts come in groups, both
allow for it (`paired_change`). Where no formula is at hand (the change of a retention, a judge's agreement with a
reader: agreement.py) the interval is drawn: 10,000 draws from a fixed seed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from stages.lib.measure.groups import by_group

ALPHA = 0.05  # below it, a p-value is called evidence; every interval is of the 95 % that are left
_Z = float(norm.ppf(1 - ALPHA / 2))
ENDS = (100 * ALPHA / 2, 100 * (1 - ALPHA / 2))  # percentiles
DRAWS, SEED = 10_000, 1126


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


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; p where a test against zero was made."""

    value: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Paired:
    """A share before and after, each with its own interval, and the change; of retention that is an Estimate."""

    before: Share
    after: Share
    change: Change | Estimate


def share(outcomes: Sequence[bool]) -> Share | None:
    """The share of true outcomes; None if there are none to count."""
    return share_of(sum(outcomes), len(outcomes)) if outcomes else None


def share_of(successes: int, n: int) -> Share:
    """successes / n, n at least 1."""
    low, high = proportion_confint(successes, n, alpha=ALPHA, method="wilson")
    return Share(successes / n, float(low), float(high), n)


def paired(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Paired:
    """Both shares and their `paired_change`. Raises ValueError on unequal or zero lengths."""
    change = paired_change(before, after, groups)
    return Paired(share_of(sum(before), change.n), share_of(sum(after), change.n), change)


def paired_change(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Change:
    """The change of a share between two measurements of the same prompts, in the same order.

    `groups` names what each prompt came from (a template, a source text): prompts of one group tend to flip together.
    The interval is then widened by the root of the design effect, if that is above 1, with t of groups - 1 for z, and p
    is of a sign-flip test over the groups. Raises ValueError on unequal or zero lengths.
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
    if groups is not None and 1 < len(set(groups)) < n:
        flips = np.array([a - b for b, a in pairs], dtype=float)
        half *= math.sqrt(max(1.0, _design_effect(flips, groups))) * t.ppf(1 - ALPHA / 2, len(set(groups)) - 1) / _Z
        p = _sign_flip_test(by_group(flips, groups))
    return Change((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), p, lost, gained, n)


def _design_effect(values: np.ndarray, groups: Sequence[str]) -> float:
    """The variance of the mean that groups leave, divided by that of as many independent values (Kish 1965; the
    clustered variance as in Miller 2024, arXiv:2411.00640, equation 4). 1 where no value differs."""
    apart = values - values.mean()
    alone = float((apart**2).sum())
    return float((by_group(apart, groups) ** 2).sum()) / alone if alone else 1.0


def _sign_flip_test(sums: np.ndarray) -> float:
    """Two-sided p of a mean change of zero: each group's sum is as likely to have the other sign (Fisher 1935).

    All sign patterns where they are no more than the draws, else as many draws, the observed one counted with them."""
    sums = sums[sums != 0]
    if 2 ** len(sums) <= DRAWS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float((abs(signs @ sums) >= abs(sums.sum())).mean())
    signs = np.random.default_rng(SEED).choice((-1, 1), (DRAWS, len(sums)))
    return float(1 + (abs(signs @ sums) >= abs(sums.sum())).sum()) / (1 + DRAWS)


def retention(before: Sequence[bool], after: Sequence[bool]) -> Share | None:
    """Of the prompts answered safely before, the share answered safely after; None if none was safe before."""
    return share([a for b, a in zip(before, after, strict=True) if b])


def retention_change(
    old_base: Sequence[bool], old_tuned: Sequence[bool], new_base: Sequence[bool], new_tuned: Sequence[bool]
) -> Estimate | None:
    """New minus old retention over the same prompts, by a bootstrap over prompts (percentiles; p two-sided, Davison and
    Hinkley 1997, sections 4.4 and 5.3). The draws have one prompt more that was lost and one that was won, as in Bonett
    and Price's interval: without flips, the bootstrap alone would be certain. For some dozens of prompts up: on five it
    is too sure. None if one of the two has no prompt that was safe before."""
    patterns = Counter(zip(old_base, old_tuned, new_base, new_tuned, strict=True))
    lost, won = (True, True, True, False), (True, False, True, True)
    kinds = np.array([*patterns, lost, won], dtype=float)

    def change(counts: np.ndarray) -> np.ndarray:
        kept_old, kept_new = counts @ (kinds[:, 0] * kinds[:, 1]), counts @ (kinds[:, 2] * kinds[:, 3])
        with np.errstate(invalid="ignore", divide="ignore"):
            return kept_new / (counts @ kinds[:, 2]) - kept_old / (counts @ kinds[:, 0])

    counts = np.array([*patterns.values(), 0, 0])
    value = float(change(counts))
    if math.isnan(value):
        return None
    counts[-2:] = 1
    drawn = change(np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), DRAWS))
    drawn = drawn[np.isfinite(drawn)]
    below, above = (drawn <= 0).sum(), (drawn >= 0).sum()
    low, high = np.percentile(drawn, ENDS)
    return Estimate(value, float(low), float(high), min(1.0, 2 * (1 + int(min(below, above))) / (1 + len(drawn))))


def is_evidence(p: float) -> bool:
    """Whether a p-value is one of a change, and not of chance."""
    return p < ALPHA


def corrected(pvalues: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the chance of any false alarm among them stays at the level."""
    return [float(p) for p in multipletests(pvalues, method="holm")[1]] if pvalues else []


def holm_factors(pvalues: Sequence[float]) -> list[int]:
    """What `corrected` multiplies each p-value by: the smallest by their number, the next by one less, and so on."""
    order = sorted(range(len(pvalues)), key=lambda place: pvalues[place])
    return [len(pvalues) - order.index(place) for place in range(len(pvalues))]


def smallest_change(lost: int, gained: int, n: int, factor: int = 1) -> float | None:
    """The smallest change of a share that McNemar's test could have shown, its p-value times `factor`, with as many
    prompts flipping the other way as did (the fewer of lost and gained). None if not even n flips would do."""
    against = min(lost, gained)
    for flips in range(against + 1, n - against + 1):
        if is_evidence(binomtest(against, against + flips).pvalue * factor):
            return (flips - against) / n
    return None
