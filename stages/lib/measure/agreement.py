"""How far a judge can be believed: its verdicts against people's labels, and people against each other. Pure.

Intervals are drawn: from the Dirichlet or Beta posteriors of what was counted, with Jeffreys' prior.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.lib.measure.stats import DRAWS, ENDS, SEED, Estimate


@dataclass(frozen=True)
class Agreement:
    """How a judge's verdicts agree with a reader's labels, over all that was judged, and the safety rate as the reader
    would have it. false_safe: of what the reader calls unsafe, the share judged safe. None: too few labels to say."""

    n: int
    kappa: Estimate | None
    false_safe: Estimate | None
    false_unsafe: Estimate | None
    safe: Estimate


def kappa(first: Sequence[bool], second: Sequence[bool]) -> Estimate | None:
    """Cohen's kappa of two readers of the same responses, with an interval from draws of the four cells (Dirichlet with
    Jeffreys' prior). None where both use one and the same label throughout."""
    if len(set(first) | set(second)) < 2:
        return None
    found = Counter(zip(first, second, strict=True))
    cells = np.array([found[a, b] for a in (True, False) for b in (True, False)], dtype=float)
    drawn = np.random.default_rng(SEED).dirichlet(cells + 0.5, DRAWS)
    return _estimate(float(_kappa(*cells / cells.sum())), _kappa(*drawn.T))


def judge_agreement(verdicts: Sequence[bool], labelled: Sequence[tuple[bool, bool]]) -> Agreement | None:
    """A reader's labels against a judge: `verdicts` are all that it gave (safe or not), `labelled` (verdict, label)
    pairs of those that were read, drawn at random within each verdict.

    The sample has its own mix of verdicts, so every figure is worked out for all that was judged: from the share judged
    safe, and the shares labelled safe among those judged safe and among those judged unsafe (post-stratification).
    Intervals come from draws of the three shares, each from its Jeffreys posterior (Brown, Cai and DasGupta 2001),
    which stays wide where few were read. None if a verdict that was given has no label.
    """
    given = [sum(verdicts), len(verdicts) - sum(verdicts)]
    read = [[label for verdict, label in labelled if verdict == kind] for kind in (True, False)]
    if any(count and not labels for count, labels in zip(given, read, strict=True)) or not labelled:
        return None
    rng = np.random.default_rng(SEED)
    judged_safe = (given[0] / len(verdicts), rng.beta(given[0] + 0.5, given[1] + 0.5, DRAWS))
    right = []
    for labels in read:
        k, n = sum(labels), len(labels)
        right.append((k / n if n else 0.0, rng.beta(k + 0.5, n - k + 0.5, DRAWS)))
    exact = _figures(judged_safe[0], right[0][0], right[1][0])
    drawn = _figures(judged_safe[1], right[0][1], right[1][1])
    found = {}
    for name, value in exact.items():
        found[name] = None if math.isnan(value) else _estimate(float(value), drawn[name])
    return Agreement(n=len(labelled), **found)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    """The 95 % interval of the draws, widened to the value where that lies at the very end, as all of none does."""
    low, high = np.percentile(drawn, ENDS)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _figures(judged_safe: Any, safe_if_safe: Any, safe_if_unsafe: Any) -> dict[str, Any]:
    """Kappa and error rates from the share judged safe and the shares labelled safe within each verdict."""
    both, wrongly_safe = judged_safe * safe_if_safe, judged_safe * (1 - safe_if_safe)
    wrongly_unsafe, neither = (1 - judged_safe) * safe_if_unsafe, (1 - judged_safe) * (1 - safe_if_unsafe)
    safe = both + wrongly_unsafe
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "kappa": _kappa(both, wrongly_safe, wrongly_unsafe, neither),
            "false_safe": np.divide(wrongly_safe, wrongly_safe + neither),
            "false_unsafe": np.divide(wrongly_unsafe, safe),
            "safe": safe,
        }


def _kappa(both: Any, first_only: Any, second_only: Any, neither: Any) -> Any:
    """Cohen's kappa from the shares of what both, one or none of two readers call safe."""
    first, second = both + first_only, both + second_only
    chance = first * second + (1 - first) * (1 - second)
    return np.divide(both + neither - chance, 1 - chance)
