"""A share whose rows come in groups, with its interval. Pure."""

from collections.abc import Sequence

from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from stages.lib.measure.groups import bunching
from stages.lib.measure.stats import Share


def grouped_share(outcomes: Sequence[bool], groups: Sequence[str], level: float = 0.95) -> Share | None:
    """The share of true outcomes with Wilson's interval (1927) of the effective number of rows: n by the design effect,
    with t of groups - 1 for z (Wilson's interval in Korn and Graubard's manner: Dean and Pagano 2015, J. Surv. Stat.
    Methodol. 3, 484-503; Franco, Little, Louis and Slud 2019, same journal 7, 334-364). The Wilson share itself at 95 %
    where no two rows share a group; 0 to 1 where all share one; None if there are none to count."""
    if not outcomes:
        return None
    k, n, bunch = sum(outcomes), len(outcomes), bunching(outcomes, groups, (0.0, 1.0))
    if bunch.freedom == 0:
        return Share(k / n, 0.0, 1.0, n)
    tail = 2 * norm.sf(t.ppf((1 + level) / 2, bunch.freedom))  # the level at which z is this t
    low, high = proportion_confint(k / bunch.effect, n / bunch.effect, alpha=tail, method="wilson")
    return Share(k / n, float(low), float(high), n)
