"""Coverage and error rates where prompts come in groups, and over training seeds. Shares are in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, t

from stages.lib.measure.decide import fall
from stages.lib.measure.seeds import Spread, change_over_seeds
from stages.lib.measure.stats import paired_change, share
from stages.lib.report.wording import Table
from tools.simulate.decisions import percent


def in_groups(draws: int, rng: np.random.Generator, sets: Any = ((40, 2), (50, 4), (20, 10), (300, 4))) -> Table:
    """Groups of which a part, alike, is of one mind. Kept where the true fall is the margin of 5 points: by Bonett and
    Price with the root of the sample's design effect, without groups, and ours. Held: a share's true value."""
    rows, draws = [], draws // 2
    for count, size in sets:
        names = [str(place // size) for place in range(count * size)]
        for alike in (0, 0.5, 1):
            for flips, true in ((0.05, 0.03), (0.1, 0.1), (0.2, 0.35)):
                kept, held = [], []
                for _ in range(draws):
                    u = rng.random((count, size))
                    u = np.where(rng.random((count, 1)) < alike, u[:, :1], u)
                    lost, gained = u < flips / 2 + 0.025, (u >= flips / 2 + 0.025) & (u < flips)
                    before, after = lost.ravel().tolist(), gained.ravel().tolist()
                    ruled = [fall(before, after, 0.05, of).verdict == "kept" for of in (None, names)]
                    kept.append([root_effect(lost, gained) > -0.05, *ruled])
                    good = (u < true).ravel().tolist()
                    held.append([of.low <= true <= of.high for of in (share(good), share(good, names))])
                row = {"groups": f"{count} of {size}", "alike": f"{100 * alike:g}", "flips": f"{100 * flips:g}"}
                methods = ("kept: Bonett-Price", "no groups", "ours")
                row |= dict(zip(methods, map(percent, np.transpose(kept)), strict=True))
                row["share"] = f"{100 * true:g}"
                rows.append(row | dict(zip(("held: Wilson", "ours "), map(percent, np.transpose(held)), strict=True)))
    return rows


def root_effect(lost: np.ndarray, gained: np.ndarray) -> float:
    """Bonett and Price's lower bound, widened by the root of the sample's own design effect."""
    flip, n = gained.astype(float) - lost, lost.size + 2
    apart, centre = flip - flip.mean(), flip.sum() / n
    effect = max(1.0, (apart.sum(axis=1) ** 2).sum() / (apart**2).sum()) if apart.any() else 1.0
    half = np.sqrt(((abs(flip).sum() + 2) / n - centre**2) / n * effect)
    return centre - t.ppf(0.95, len(flip) - 1) * half


def models(rng: np.random.Generator, seeds: Sequence[int], n: int, luck: float) -> list[np.ndarray]:
    """Outcomes of models on the same prompts, 0 seeds for one without training: prompts differ in how hard they are, a
    little for each model anew, seeds by `luck`, and chance does the rest. Right in about 64 %."""
    hard = rng.normal(size=n)
    found = []
    for count in seeds:
        own = np.sqrt(0.9) * hard + np.sqrt(0.1) * rng.normal(size=n)
        trained = (luck if count else 0) * rng.normal(size=(max(count, 1), 1))
        outcomes = 0.45 + trained + own + 0.8 * rng.normal(size=(max(count, 1), n)) > 0
        found.append(outcomes if count else outcomes[0])
    return found


def true_change(seeds: Sequence[int], luck: float) -> float:
    """Of `models`, last minus first."""
    first, last = (norm.cdf(0.45 / np.sqrt(1.64 + (luck if count else 0) ** 2)) for count in (seeds[0], seeds[-1]))
    return float(last - first)


def trainings(
    draws: int,
    rng: np.random.Generator,
    sizes: Any = (112, 1200),
    sides: Any = ((0, 3), (0, 6), (2, 2), (3, 3), (6, 6)),
) -> Table:
    """Intervals of a change between two revisions (0: the untuned model) that hold the true one."""
    rows = []
    for n in sizes:
        for seeds in sides:
            for luck in (0, 0.12, 0.4):
                true, held, widths, spreads = true_change(seeds, luck), [], [], []
                for _ in range(draws // 4):
                    before, after = models(rng, seeds, n, luck)
                    found = change_over_seeds(before, after)
                    first = paired_change((before if seeds[0] == 0 else before[0]).tolist(), after[0].tolist())
                    low, high = multi_bootstrap(rng, np.atleast_2d(before), after)
                    held.append([of[0] <= true <= of[1] for of in ((first.low, first.high), (low, high))])
                    held[-1].append(found.low <= true <= found.high)
                    widths.append(found.high - found.low)
                    spreads.append(found.after.sd**2)
                row = {"n": n, "seeds": f"{seeds[0]} and {seeds[1]}", "sd seen": f"{100 * np.mean(spreads) ** 0.5:.1f}"}
                methods = ("one seed, prompts alone", "Multi-Bootstrap", "ours")
                row |= dict(zip(methods, map(percent, np.transpose(held)), strict=True))
                rows.append({**row, "width of ours": percent(widths)})
    return rows


def multi_bootstrap(rng: np.random.Generator, before: np.ndarray, after: np.ndarray, draws: int = 400) -> np.ndarray:
    """Seeds and prompts drawn anew, both models on the same prompts: percentiles of the change."""
    changes = 0.0
    for sign, side in ((-1, before), (1, after)):
        seeds = rng.multinomial(len(side), np.full(len(side), 1 / len(side)), draws) / len(side)
        changes = changes + sign * (seeds @ side)
    prompts = rng.integers(0, after.shape[1], changes.shape)
    return np.percentile(np.take_along_axis(changes, prompts, axis=1).mean(axis=1), (2.5, 97.5))


def single_trainings(draws: int, rng: np.random.Generator, sizes: Any = (112, 1200)) -> Table:
    """One seed a side, with the spread known from so many other trainings of one side."""
    rows = []
    for n in sizes:
        for seeds in ((0, 1), (1, 1)):
            for known in (3, 6):
                for luck in (0, 0.12, 0.4):
                    true, held = true_change(seeds, luck), []
                    for _ in range(draws // 2):
                        before, *others, after = models(rng, (seeds[0], known, 1), n, luck)
                        spread = Spread(float(others[0].mean(axis=1).std(ddof=1)), known)
                        alone = paired_change(np.ravel(before).tolist(), after[0].tolist())
                        found = change_over_seeds(before, after, known=spread)
                        held.append([of.low <= true <= of.high for of in (alone, found)])
                    row = {"n": n, "seeds": f"{seeds[0]} and {seeds[1]}", "known from": known, "luck": luck}
                    rows.append(
                        row | dict(zip(("prompts alone", "ours"), map(percent, np.transpose(held)), strict=True))
                    )
    return rows
