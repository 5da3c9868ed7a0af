"""Training is a draw: a change of a share with prompts and training seeds both. Pure.

The same configuration with another seed gives another model. Of a model family the mean over seeds is asked about, and
its estimate varies with the prompts and with the seeds: y = mean + seed + prompt + both. The interval is Student's with
the sum of the two components' variances (a two-way random-effects analysis, Cornfield and Tukey 1956, Ann. Math. Stat.
27, 907-949) and Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2, 110-114). The variance of the two
together is in both components, and so counted twice, which errs on the safe side. The Multi-Bootstrap (Sellam et al.
2022, arXiv:2106.16163) estimates the same, but with three seeds it is too narrow: docs/STATISTICS.md has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from stages.lib.measure.groups import by_group


@dataclass(frozen=True)
class Spread:
    """sd: standard deviation of a share over so many trainings (two at least) that differ in their seed alone, on the
    same prompts; 0.044 is 4.4 points."""

    sd: float
    seeds: int


@dataclass(frozen=True)
class SeedChange:
    """value: after minus before, means over seeds and prompts, with its interval and p (Student's t) for prompts and
    seeds both, and the share of its variance that is due to training. These are None where a side has one seed and no
    spread is known: one training says so, and how much of it is luck cannot be said. before, after: the spreads that
    went in, None for a model without training."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    of_training: float | None
    before: Spread | None
    after: Spread | None


def change_over_seeds(
    before: Any,
    after: Any,
    groups: Sequence[str] | None = None,
    known: Spread | None = None,
    level: float = 0.95,
) -> SeedChange:
    """The change between two models on the same n prompts. `before` and `after` are outcomes (right, safe): an array of
    n of a model that nothing was trained for, or (seeds, n). For two revisions, both are of tuned models; if both have
    the same untuned model, this is also the change of what tuning did to it.

    `known` is the spread of a side with one seed, from other trainings on as many prompts (on more prompts than that it
    is too wide). Seeds of the two sides count as independent also where they have the same number. As in Bonett and
    Price's interval, one prompt is added that was lost and one that was won (of `groups`, one group each): without
    flips, the prompts' part would be none. `level` is two-sided: 0.9 gives one-sided 95 % bounds, for `decide.decided`.
    Raises ValueError on unequal lengths.
    """
    sides = [np.atleast_2d(np.asarray(of, dtype=float)) for of in (before, after)]
    n = sides[0].shape[1]
    if n == 0 or n != sides[1].shape[1] or groups is not None and len(groups) != n:
        raise ValueError(f"paired outcomes need the same length from 1 up, found {n} and {sides[1].shape[1]}")
    value = float(sides[1].mean() - sides[0].mean())
    spreads = [
        None if np.ndim(of) == 1 else _spread(side, known) for of, side in zip((before, after), sides, strict=True)
    ]
    if any(np.ndim(of) > 1 and not spread for of, spread in zip((before, after), spreads, strict=True)):
        return SeedChange(value, None, None, None, None, *spreads)
    changes = _units(sides[1].mean(axis=0) - sides[0].mean(axis=0), groups)
    of_prompts = float(changes.var(ddof=1)) / len(changes)
    parts = [(of_prompts, len(changes) - 1)]
    for spread, side in zip(spreads, sides, strict=True):
        if spread:
            parts.append((spread.sd**2 / len(side), spread.seeds - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / of for part, of in parts)
    centre, error = float(changes.mean()), variance**0.5
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    p = 2 * float(t.sf(abs(centre) / error, freedom))
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return SeedChange(value, low, high, p, float(1 - of_prompts / variance), *spreads)


def _spread(outcomes: np.ndarray, known: Spread | None) -> Spread | None:
    """Over the seeds at hand; of one seed, what is known."""
    if len(outcomes) == 1:
        return known
    return Spread(float(outcomes.mean(axis=1).std(ddof=1)), len(outcomes))


def _units(changes: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    """Values whose mean is the mean change and which vary independently: the changes of the prompts, or of groups, each
    as its prompts' distance from the mean (linearized, so that groups may differ in size); with one that was lost and
    one that was won."""
    if groups is None:
        return np.append(changes, (-1.0, 1.0))
    size = round(np.square(by_group(np.ones(len(changes)), groups)).sum() / len(changes))
    changes = np.append(changes, [-1.0] * size + [1.0] * size)
    sums = by_group(changes - changes.mean(), [*map(str, groups), *[0] * size, *[1] * size])
    return changes.mean() + sums * len(sums) / len(changes)
