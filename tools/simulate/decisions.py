"""Decisions from counts of prompts: error rates, operating curve, numbers of prompts. Shares are in percent."""

from typing import Any

import numpy as np
from scipy.stats import beta, binom, multinomial, norm

from stages.lib.measure import bounds, power
from stages.lib.report.wording import Table

Z = norm.ppf(0.95)


def tables(rng: np.random.Generator, draws: int, n: int, fall: float, flips: float) -> np.ndarray:
    """Counts of prompts good before and after, lost, gained, and bad before and after; 70 % are good before."""
    lost, gained = (flips + fall) / 2, (flips - fall) / 2
    return rng.multinomial(n, (0.7 - lost, lost, gained, 0.3 - gained), draws).T.astype(float)


def ours(cells: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Kept, and broken, as `decide.fall` finds it for each table."""
    score = bounds.score(cells[1] + 0.5, cells[2] + 0.5, cells.sum(axis=0) + 1, -margin)
    return score > Z, score < -Z


def candidates(cells: np.ndarray, n: int, margin: float) -> dict[str, np.ndarray]:
    """Kept by the lower bounds of other methods."""
    both, lost, gained, neither = cells
    found = {}
    for name, more in (("Wald", 0), ("Bonett-Price", 1)):
        centre = (gained - lost) / (n + 2 * more)
        found[name] = centre - Z * np.sqrt(((lost + gained + 2 * more) / (n + 2 * more) - centre**2) / (n + 2 * more))
    first, second = both + lost, both + gained
    product = both * neither - lost * gained
    product = np.where(product > 0, np.maximum(product - n / 2, 0), product)
    phi = product / np.sqrt(np.maximum(first * second * (n - first) * (n - second), 1))
    below, above = second / n - wilson(second, n)[0], wilson(first, n)[1] - first / n
    found["Newcombe"] = (gained - lost) / n - np.sqrt(below**2 - 2 * phi * below * above + above**2)
    tango = bounds.score(lost + 1e-9, gained + 1e-9, n, -margin) > Z
    return {**{name: low > -margin for name, low in found.items()}, "Tango": tango}


def wilson(k: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's one-sided bounds."""
    centre, half = k + Z**2 / 2, Z * np.sqrt(k * (n - k) / n + Z**2 / 4)
    return (centre - half) / (n + Z**2), (centre + half) / (n + Z**2)


def paired(draws: int, rng: np.random.Generator, sizes: Any = (14, 48, 112, 140, 495, 1200)) -> Table:
    """Where the true fall is the margin: chance of kept, by method, and of broken."""
    rows = []
    for margin in (0.05, 0.1):
        for n in sizes:
            for flips in (0.05, 0.1, 0.2, 0.4)[margin > 0.05 :]:
                cells = tables(rng, 20 * draws, n, margin, flips)
                row = {"margin": f"{100 * margin:g}", "n": n, "flips": f"{100 * flips:g}"}
                row |= {name: percent(kept) for name, kept in candidates(cells, n, margin).items()}
                kept, broken = ours(cells, margin)
                rows.append({**row, "ours": percent(kept), "ours: broken": percent(broken)})
    return rows


def worst(draws: int, rng: np.random.Generator, sizes: Any = range(12, 160, 4)) -> Table:
    """The same for many n and shares of flips, exact: the largest chance of kept, and of broken."""
    rows = []
    for margin in (0.02, 0.05, 0.1):
        found: dict[str, float] = {}
        for n in sizes:
            lost, gained = np.indices((n + 1, n + 1)).reshape(2, -1)
            lost, gained = lost[lost + gained <= n], gained[lost + gained <= n]
            tango = bounds.score(lost + 1e-9, gained + 1e-9, n, -margin)
            half = bounds.score(lost + 0.5, gained + 0.5, n + 1, -margin)
            centre, spread = (gained - lost) / (n + 2), (lost + gained + 2) / (n + 2)
            price = (centre + margin) / np.sqrt((spread - centre**2) / (n + 2))
            for flips in (margin, 1.1 * margin, 1.5 * margin, 2 * margin, 0.2, 0.4):
                true = (flips + margin) / 2, (flips - margin) / 2
                p = multinomial.pmf(np.stack([lost, gained, n - lost - gained], axis=1), n, (*true, 1 - flips))
                for name, of in (("Bonett-Price", price), ("Tango", tango), ("ours", half)):
                    for verdict, wrong in (("kept", of > Z), ("broken", of < -Z)):
                        key = f"{name}: {verdict}"
                        found[key] = max(found.get(key, 0.0), float(p[wrong].sum()))
        rows.append({"margin": f"{100 * margin:g}", **{key: percent(of) for key, of in found.items()}})
    return rows


def curve(draws: int, rng: np.random.Generator, sizes: Any = (80, 112, 1200)) -> Table:
    """20 % of prompts flip. Before: a fall above 5 points with McNemar's p < 0.05 stops, all else passes."""
    rows = []
    for n in sizes:
        for fall in (0, 2.5, 5, 7.5, 10, 12.5, 15):
            cells = tables(rng, 20 * draws, n, fall / 100, 0.2)
            lost, gained = cells[1:3]
            stopped = (lost - gained > 0.05 * n) & (2 * binom.cdf(gained, lost + gained, 0.5) < 0.05)
            row = {"n": n, "true fall": f"{fall:g}", "before: passes": percent(~stopped)}
            for margin in (0.05, 0.1):
                kept, broken = ours(cells, margin)
                for verdict, found in (("kept", kept), ("undecided", ~kept & ~broken), ("broken", broken)):
                    row[f"{100 * margin:g}: {verdict}"] = percent(found)
            rows.append({**row, "any fall: broken": percent(ours(cells, 0.0)[1])})
    return rows


def tested(draws: int, rng: np.random.Generator, sizes: Any = (8, 14, 42, 80, 112, 140, 1200)) -> Table:
    """Where nothing changed: the chance of p < 0.05, by McNemar's exact test and ours, the largest over shares of flips
    up to so many percent; exact."""
    rows = []
    for n in sizes:
        row: dict[str, Any] = {"n": n}
        flips = np.arange(n + 1)[:, None]
        lost = np.arange(n + 1)[None, :]
        ways = binom.pmf(lost, flips, 0.5)
        p = {"exact": 2 * binom.cdf(np.minimum(lost, flips - lost), flips, 0.5)}
        p["ours"] = 2 * norm.sf(abs(flips - 2 * lost) / np.sqrt(flips + 1))
        for name, of in p.items():
            found = (ways * ((of < 0.05) & (lost <= flips))).sum(axis=1)  # by the number of flips
            for most in (20, 60):
                chances = [binom.pmf(flips.ravel(), n, share / 100) @ found for share in range(1, most + 1)]
                row[f"{name}: up to {most}"] = percent([max(chances)])
        rows.append(row)
    return rows


def limits(draws: int, rng: np.random.Generator) -> Table:
    """Where a share is its limit: the largest chance of kept and of broken for n from 10 to 200; exact."""
    rows = []
    for limit in (0.03, 0.1, 0.4):
        worst: dict[str, float] = {}
        for n in range(10, 201):
            k = np.arange(n + 1.0)
            exact = np.nan_to_num(beta.ppf(0.05, k, n - k + 1)), np.nan_to_num(beta.ppf(0.95, k + 1, n - k), nan=1.0)
            for name, (low, high) in (("Wilson", wilson(k, n)), ("ours", exact)):
                for verdict, wrong in (("kept", high <= limit), ("broken", low > limit)):
                    chance = float(binom.pmf(k, n, limit)[wrong].sum())
                    worst[f"{name}: {verdict}"] = max(worst.get(f"{name}: {verdict}", 0.0), chance)
        rows.append({"limit": f"{100 * limit:g}", **{name: percent([of]) for name, of in worst.items()}})
    return rows


def wanted(draws: int, rng: np.random.Generator) -> Table:
    """The number of prompts wanted, and the chance of kept that it gives where nothing changed."""
    rows = []
    for margin in (0.05, 0.1):
        for flips in (0.01, 0.05, 0.1, 0.2, 0.3):
            n = power.prompts_wanted(flips, margin)
            kept = percent(ours(tables(rng, 20 * draws, n, 0, flips), margin)[0])
            rows.append({"margin": f"{100 * margin:g}", "flips": f"{100 * flips:g}", "prompts": n, "kept": kept})
    return rows


def shown(draws: int, rng: np.random.Generator) -> Table:
    """The change that a set shows in four of five tries, alone and beside two p-values that are not small, and the
    chance that it is found, its p corrected with theirs."""
    rows = []
    for n, lost, gained in ((112, 15, 9), (140, 13, 12), (1200, 120, 120)):
        row: dict[str, Any] = {"n": n, "lost": lost, "gained": gained}
        for name, others in (("alone", []), ("of three", [0.2, 0.5])):
            change = power.change_to_show(lost, gained, n, power.holm_level(others))
            against = (min(lost, gained) + 0.5) / (n + 1)
            fell, rose = tables(rng, 20 * draws, n, change, 2 * against + change)[1:3]
            p = 2 * norm.sf((fell - rose) / np.sqrt(fell + rose + 1)) * (len(others) + 1)
            row |= {f"{name}: change": f"{100 * change:.1f}", f"{name}: found": percent(p < 0.05)}
        rows.append(row)
    return rows


def percent(of: Any) -> str:
    """The mean of truths or shares, in percent."""
    return f"{100 * np.mean(of):.1f}"
