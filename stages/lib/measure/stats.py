"""Intervals and paired tests beside every number. Pure: numbers in, numbers out.

Shares carry a Wilson 95 % interval (Wilson 1927). Base and tuned answer the same prompts, so their difference is
paired: interval and p-value are Tango's score (bounds.py), by which the gate decides as well, so that no two of them
disagree. All allow for prompts that come in groups. Where no formula is at hand (the change of a retention, a judge's
agreement with a reader: agreement.py) the interval is drawn: 10,000 draws from a fixed seed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from stages.lib.measure.bounds import change_bounds, change_p
from stages.lib.measure.groups import ALONE, Bunching, bunching

ALPHA = 0.05  # below it, a p-value is called evidence; every interval is of the 95 % that are left
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
class Flips:
    """How many of n prompts became false and true between two measurements, and how far they do so in groups."""

    lost: int
    gained: int
    n: int
    bunch: Bunching


@dataclass(frozen=True)
class Change:
    """after minus before on the same prompts: value, 95 % interval, p, and prompts lost and gained."""

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


def share(outcomes: Sequence[bool], groups: Sequence[str] | None = None) -> Share | None:
    """The share of true outcomes; None if there are none to count. `groups` as `paired_change` has them."""
    if not outcomes:
        return None
    return share_of(sum(outcomes), len(outcomes), bunching(outcomes, groups, (0.0, 1.0)))


def share_of(successes: int, n: int, bunch: Bunching = ALONE) -> Share:
    """successes / n, n at least 1. In groups, Wilson's interval of the effective number of rows: n by the design
    effect, with t of groups - 1 for z (in Korn and Graubard's manner: Dean and Pagano 2015, J. Surv. Stat. Methodol. 3,
    484-503; Franco, Little, Louis and Slud 2019, same journal 7, 334-364). 0 to 1 where all rows share one group."""
    if bunch.freedom == 0:
        return Share(successes / n, 0.0, 1.0, n)
    tail = 2 * norm.sf(t.ppf(1 - ALPHA / 2, bunch.freedom))  # the level at which z is this t
    low, high = proportion_confint(successes / bunch.effect, n / bunch.effect, alpha=tail, method="wilson")
    return Share(successes / n, float(low), float(high), n)


def paired(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Paired:
    """Both shares and their `paired_change`. Raises ValueError on unequal or zero lengths."""
    change = paired_change(before, after, groups)
    return Paired(share(before, groups), share(after, groups), change)


def paired_change(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Change:
    """The change of a share between two measurements of the same prompts, in the same order.

    `groups` names what each prompt came from (a template, a source text): prompts of one group tend to flip together.
    Raises ValueError on unequal or zero lengths.
    """
    of = flips(before, after, groups)
    low, high = change_bounds(of.lost, of.gained, of.n, 1 - ALPHA / 2, of.bunch)
    p = change_p(of.lost, of.gained, of.n, of.bunch)
    return Change((of.gained - of.lost) / of.n, low, high, p, of.lost, of.gained, of.n)


def flips(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Flips:
    """What flipped between two measurements of the same prompts; `groups` and errors as `paired_change` has them."""
    n = len(before)
    if n == 0 or n != len(after):
        raise ValueError(f"paired outcomes need the same length from 1 up, found {n} and {len(after)}")
    each = np.subtract(after, before, dtype=float)
    return Flips(int((each < 0).sum()), int((each > 0).sum()), n, bunching(each, groups, (-1.0, 1.0)))


def retention(before: Sequence[bool], after: Sequence[bool], groups: Sequence[str] | None = None) -> Share | None:
    """Of the prompts answered safely before, the share answered safely after; None if none was safe before."""
    kept = [place for place, was in enumerate(before) if was]
    return share([after[place] for place in kept], groups and [groups[place] for place in kept])


def retention_change(
    old_base: Sequence[bool], old_tuned: Sequence[bool], new_base: Sequence[bool], new_tuned: Sequence[bool]
) -> Estimate | None:
    """New minus old retention over the same prompts, by a bootstrap over prompts (percentiles, Davison and Hinkley
    1997, section 5.3); no p, since it tests what the change of safety does. The draws have one prompt more that was
    lost and one that was won: without flips, the bootstrap alone would be certain. For some dozens of prompts up: on
    five it is too sure. None if one of the two has no prompt that was safe before."""
    patterns = Counter(zip(old_base, old_tuned, new_base, new_tuned, strict=True))
    lost, won = (True, True, True, False), (True, False, True, True)
    kinds = np.array([*patterns, lost, won], dtype=float)

    def change(counts: np.ndarray) -> np.ndarray:
        kept_old, kept_new = counts @ (kinds[:, 0] * kinds[:, 1]), counts @ (kinds[:, 2] * kinds[:, 3])
        with np.errstate(invalid="ignore", divide="ignore"):
            return kept_new / (counts @ kinds[:, 2]) - kept_old / (counts @ kinds[:, 0])

    counts = np.array([*patterns.values(), 0, 0])
    value = float(change(counts))
    if np.isnan(value):
        return None
    counts[-2:] = 1
    drawn = change(np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), DRAWS))
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, ENDS)
    return Estimate(value, float(low), float(high))


def is_evidence(p: float) -> bool:
    """Whether a p-value is one of a change, and not of chance."""
    return p < ALPHA


def corrected(pvalues: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the chance of any false alarm among them stays at the level."""
    return [float(p) for p in multipletests(pvalues, method="holm")[1]] if pvalues else []
