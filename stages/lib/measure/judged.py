"""Safety and its change with the judge's own errors: what a reader of all responses would have found. Pure.

Every response has a verdict, some have a reader's label. Within strata, refusal by verdict, the labels say how often a
response is safe in truth; that is weighed by how often each stratum occurs: stratified sampling in two phases (Neyman
1938, J. Amer. Statist. Assoc. 33, 101-116; Cochran 1977, Sampling Techniques, 12.2), which is prediction-powered
inference (Angelopoulos et al. 2023, Science 382, 669-674, arXiv:2301.09633; PPI++, arXiv:2311.01453) whose predictions
are the strata's own shares (stratified: Fisch et al. 2024, arXiv:2406.04291).

What a verdict means differs between subjects wherever the responses do, so each subject's own labels count; where they
are too few, both subjects' together do, which assumes that the same verdict is right as often for both.

Labels of both responses to the same prompts (`corrected_by_pairs`) say more: a reader's labels of the two tend to
agree, and their difference is estimated as such, within strata by both verdicts. With as many labels a change is found
more often, more than twice as often where the two models' responses are much alike (docs/STATISTICS.md).

Intervals are of 10,000 draws from a fixed seed: of the prompts by the Bayesian bootstrap (Rubin 1981, Ann. Statist. 9,
130-134), each with both its strata; of the shares within a stratum from their Jeffreys posterior (Brown, Cai and
DasGupta 2001, Statist. Sci. 16, 101-133), which stays wide where few were read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.lib.measure.stats import DRAWS, SEED, Estimate

FEW, RARE = 5, 0.05  # a stratum with more than RARE of a subject's prompts needs FEW labels


@dataclass(frozen=True)
class Label:
    """A reader's label of one response, drawn at random within its stratum: the later subject's (`after`)? judged safe?
    a refusal? safe in truth?"""

    after: bool
    verdict: bool
    refused: bool
    safe: bool


@dataclass(frozen=True)
class PairLabels:
    """A reader's labels of both responses to a prompt, drawn at random among those with the same verdicts: (before,
    after) judged safe, and safe in truth."""

    verdicts: tuple[bool, bool]
    safe: tuple[bool, bool]


@dataclass(frozen=True)
class Judged:
    """Safety as a reader would have it, before and after, and the paired change. judged: the change by the judge. bias:
    by the judge minus by the reader. error: the difference, after minus before, of the share of verdicts that are
    wrong. p: two-sided, of no change, no bias, no difference. kappa: Cohen's, over both subjects' responses; None where
    all are of one kind. labels: how many were read. by_subject: whether each subject's own labels were used; without
    them, `bias` and `error` tell of the strata's frequencies alone."""

    before: Estimate
    after: Estimate
    change: Estimate
    judged: float
    bias: Estimate
    error: Estimate
    kappa: Estimate | None
    labels: int
    by_subject: bool


def corrected_safety(
    before: Sequence[tuple[bool, bool]],
    after: Sequence[tuple[bool, bool]],
    labels: Sequence[Label],
    level: float = 0.95,
) -> Judged | None:
    """Safety and its change as the reader of the labels would have it, estimated for all responses.

    `before` and `after`: (judged safe, refused) of each prompt's response, in the same order. `level` is two-sided: 0.9
    gives one-sided 95 % bounds, for `decide.decided`. A rare stratum without labels counts as unknown, anything from
    none to all safe. In the draws one prompt more was lost and one won, as in Bonett and Price's interval. None if the
    labels do not suffice (`FEW` of each stratum that is not rare). Raises ValueError on unequal or zero lengths.
    """
    n = _count(before, after)
    strata = [np.array([2 * refused + safe for safe, refused in side]) for side in (before, after)]
    weights = np.array([np.bincount(of, minlength=4) for of in strata]) / n
    read = np.zeros((2, 4, 2))  # subject, stratum, label
    for label in labels:
        read[int(label.after), 2 * label.refused + label.verdict, int(label.safe)] += 1
    by_subject = _suffice(weights, read)
    if not by_subject:
        read = np.broadcast_to(read.sum(axis=0), read.shape)
        if not _suffice(weights, read):
            return None
    rng = np.random.default_rng(SEED)
    drawn = _bootstrap(rng, np.append(np.bincount(4 * strata[0] + strata[1], minlength=16), (1, 1)))
    table, added = drawn[:, :16].reshape(-1, 4, 4), drawn[:, 16:]
    safe = rng.beta(read[..., 1] + 0.5, read[..., 0] + 0.5, (DRAWS, 2, 4))
    if not by_subject:
        safe[:, 1] = safe[:, 0]
    given = np.array([0.0, 1.0, 0.0, 1.0])  # the verdict of each stratum

    def shares(weights: np.ndarray, safe: np.ndarray, added: np.ndarray | float) -> tuple[np.ndarray, ...]:
        wrong = (weights * np.where(given, 1 - safe, safe)).sum(axis=-1)
        return weights @ given + added, (weights * safe).sum(axis=-1) + added, wrong

    exact = shares(weights[None], _means(read)[None, ..., 1], 0.0)
    spread = shares(np.stack([table.sum(axis=2), table.sum(axis=1)], axis=1), safe, added)
    return _judged(exact, spread, level, len(labels), by_subject)


def corrected_by_pairs(
    before: Sequence[bool], after: Sequence[bool], labels: Sequence[PairLabels], level: float = 0.95
) -> Judged | None:
    """The same from labels of both responses to prompts. `before` and `after`: judged safe or not, of each prompt in
    the same order. None if the labels do not suffice; raises ValueError as `corrected_safety` does."""
    n = _count(before, after)
    weights = np.bincount(2 * np.array(before, dtype=int) + np.array(after, dtype=int), minlength=4)
    read = np.zeros((4, 4))  # both verdicts, both labels
    for pair in labels:
        read[2 * pair.verdicts[0] + pair.verdicts[1], 2 * pair.safe[0] + pair.safe[1]] += 1
    if not _suffice(weights / n, read):
        return None
    rng = np.random.default_rng(SEED)
    within = np.stack([rng.dirichlet(of + 0.5, DRAWS) for of in read], axis=1)
    good = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # of both verdicts, or both labels: before, after

    def shares(joint: np.ndarray) -> tuple[np.ndarray, ...]:
        wrong = good[:, None] != good[None, :]
        return joint.sum(axis=2) @ good, joint.sum(axis=1) @ good, np.einsum("dvl,vls->ds", joint, wrong)

    exact = shares((weights[:, None] / n * _means(read))[None])
    return _judged(exact, shares(_bootstrap(rng, weights)[..., None] * within), level, 2 * len(labels), True)


def _count(before: Sequence, after: Sequence) -> int:
    if len(before) == 0 or len(before) != len(after):
        raise ValueError(f"paired verdicts need the same length from 1 up, found {len(before)} and {len(after)}")
    return len(before)


def _suffice(weights: np.ndarray, read: np.ndarray) -> bool:
    """Whether every stratum that is not rare has a few labels."""
    return bool((read.sum(axis=-1) >= FEW)[weights > RARE].all())


def _means(read: np.ndarray) -> np.ndarray:
    """The shares of each label within a stratum, all alike where nothing was read."""
    total = read.sum(axis=-1, keepdims=True)
    return np.where(total, read / np.maximum(total, 1), 1 / read.shape[-1])


def _bootstrap(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Draws of the shares of prompts that have been counted."""
    drawn = rng.standard_gamma(counts.astype(float), (DRAWS, len(counts)))
    return drawn / drawn.sum(axis=1, keepdims=True)


def _judged(exact: Sequence, spread: Sequence, level: float, labels: int, by_subject: bool) -> Judged:
    """From the estimates and the draws of each subject's shares that are judged safe, are safe, are judged wrongly."""
    found = {}
    figures = zip(_figures(*exact).items(), _figures(*spread).values(), strict=True)
    for (name, value), drawn in figures:
        tested = name in ("change", "bias", "error")
        found[name] = _estimate(float(value[0]), drawn[np.isfinite(drawn)], level, tested)
    judged = float(exact[0][0, 1] - exact[0][0, 0])
    return Judged(**found, judged=judged, labels=labels, by_subject=by_subject)


def _figures(said: np.ndarray, truth: np.ndarray, wrong: np.ndarray) -> dict[str, np.ndarray]:
    """Every figure of (draws, subject)."""
    change = truth[:, 1] - truth[:, 0]
    judged, true, error = said.mean(axis=1), truth.mean(axis=1), wrong.mean(axis=1)
    chance = judged * true + (1 - judged) * (1 - true)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (1 - error - chance) / (1 - chance)
    return {
        "before": truth[:, 0],
        "after": truth[:, 1],
        "change": change,
        "bias": said[:, 1] - said[:, 0] - change,
        "error": wrong[:, 1] - wrong[:, 0],
        "kappa": kappa,
    }


def _estimate(value: float, drawn: np.ndarray, level: float, tested: bool) -> Estimate | None:
    """The draws' interval, widened to the value where that lies at the very end; p of none, if that is tested."""
    if not np.isfinite(value) or not len(drawn):
        return None
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    p = 2 * (1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))) / (1 + len(drawn))
    return Estimate(value, min(float(low), value), max(float(high), value), min(1.0, p) if tested else None)
