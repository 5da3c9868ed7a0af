"""What a set of prompts can show, and how many it would take. Pure.

Two questions are asked of flips, prompts whose outcome differs between the two models. What true change would the test
have found in four of five tries? And how many prompts would show that no more than a margin was lost?
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, norm

from stages.lib.measure.stats import ALPHA

POWER = 0.8  # four of five tries


def holm_level(others: Sequence[float], alpha: float = ALPHA) -> float:
    """The level below which one more p-value is significant beside `others` by Holm's correction (1979, Scand. J.
    Statist. 6, 65-70): alpha by the number of hypotheses that are left when the smallest of the others have been
    rejected, one by one. It does not depend on the p-value itself, whose rank moves with it."""
    level = alpha / (len(others) + 1)
    for passed, p in enumerate(sorted(others), 1):
        if p >= level:
            break
        level = alpha / (len(others) + 1 - passed)
    return level


def chance_to_show(n: int, against: float, change: float, level: float = ALPHA) -> float:
    """The chance that a paired change on n prompts has p < level (`bounds.change_p`), in the true direction, if
    `against` of the prompts flip one way and against + change the other (shares). Exact: flips are binomial, and so is
    their direction given their number (Miettinen 1968, Biometrics 24, 339-352)."""
    flipping = 2 * against + change
    if flipping == 0:
        return 0.0
    flips = np.arange(n + 1)
    most = np.ceil((flips - norm.isf(level / 2) * np.sqrt(flips + 1)) / 2) - 1  # against, at which p is below the level
    found = binom.pmf(flips, n, flipping) @ binom.cdf(most, flips, against / flipping)
    return float(found)


def change_to_show(lost: int, gained: int, n: int, level: float = ALPHA, effect: float = 1.0) -> float | None:
    """The smallest change of a share (in steps of a tenth of a point) that such a set shows in four of five tries, with
    as many prompts flipping against it as now did: the fewer of lost and gained, and half a prompt more, so that none
    seen is not none at all. `level`: `holm_level` of the p-values beside it. `effect`: the design effect of prompts in
    groups, of which n count as n / effect. None if no change that leaves room for the others would do."""
    against, count = (min(lost, gained) + 0.5) / (n + 1), int(n / effect)
    most = int(1000 * (1 - 2 * against))
    tenths = 1 + bisect_left(range(1, most + 1), POWER, key=lambda of: chance_to_show(count, against, of / 1000, level))
    return tenths / 1000 if tenths <= most else None


def prompts_wanted(flips: float, margin: float, effect: float = 1.0, level: float = 0.95) -> int | None:
    """Prompts that show with 80 % power that a share fell by less than `margin`, if it did not change and `flips` (a
    share) of the prompts flip: (z of the level + z of the power)^2 * flips / margin^2 (Lu and Bean 1995, Statist. Med.
    14, 1831-1839), times the design effect; at least as many as decide where not one flips, ln(1 - level) / ln(1 -
    margin). None at a margin of 0: no number of prompts shows that nothing was lost. Where hardly more flip than the
    margin allows to be lost, the formula is short: docs/STATISTICS.md has the power that it gives."""
    if margin <= 0:
        return None
    formula = (norm.ppf(level) + norm.ppf(POWER)) ** 2 * flips / margin**2
    fewest = math.log(1 - level) / math.log(1 - margin) if margin < 1 else 1
    return math.ceil(effect * max(formula, fewest))
