"""Prompts that come in groups (a template, a topic, a source text) say less than as many that stand alone. Pure.

How much less is the design effect: the variance of a mean that the groups leave, divided by that of as many values that
are independent (Kish 1965, Survey Sampling, section 5.4; the clustered variance as in Miller 2024, arXiv:2411.00640,
equation 4). Where few values differ it cannot be seen: no flip in 20 groups of 10 may be 200 prompts that agree, or 20.
So half a group is added at either end of the scale, in the manner of Bonett and Price's one prompt lost and one won:
with nothing seen, a group counts as one prompt, and with much seen the addition weighs nothing. Without it, a fall as
large as the margin is called kept in up to 36 % of tries, where 5 are meant (docs/STATISTICS.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bunching:
    """effect: the design effect, at least 1; size: of the group that a prompt finds itself in, on average; freedom:
    groups - 1, the degrees of freedom of the variance between them, infinite where prompts stand alone."""

    effect: float
    size: float
    freedom: float


ALONE = Bunching(1.0, 1.0, math.inf)


def bunching(values: Sequence[float], groups: Sequence[str] | None, ends: tuple[float, float]) -> Bunching:
    """The bunching of values that lie between `ends`; ALONE if no two share a group. Raises ValueError if `groups` is
    of another length than `values`."""
    if groups is None or len(set(groups)) == len(values) == len(groups):
        return ALONE
    if len(groups) != len(values):
        raise ValueError(f"found {len(values)} values and {len(groups)} groups")
    x = np.asarray(values, dtype=float)
    sizes, sums = by_group(np.ones(len(x)), groups), by_group(x, groups)
    size = float((sizes**2).sum() / len(x))
    mean = (x.sum() + size * sum(ends) / 2) / (len(x) + size)
    added = sum((end - mean) ** 2 for end in ends) / 2
    between = ((sums - sizes * mean) ** 2).sum() + size**2 * added
    alone = ((x - mean) ** 2).sum() + size * added
    return Bunching(max(1.0, float(between / alone)), size, len(sums) - 1)


def by_group(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """The sums of the values (of each row of values) over each group, in the order in which the groups first appear."""
    places = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    found = np.zeros((*values.shape[:-1], len(places)))
    np.add.at(found, (..., [places[name] for name in groups]), values)
    return found
