"""A judge that errs, and a reader's labels: coverage and power of the corrected change. Shares are in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from stages.lib.measure.judged import Label, PairLabels, corrected_by_pairs, corrected_safety
from stages.lib.measure.stats import paired_change
from stages.lib.report.wording import Table
from tools.simulate.decisions import percent

# refused, judged safe, safe by two readers, of a base and a tuned model's response to one of 84 prompts, and how many
# (what commit 6f7b917 holds in models/embedded: labels.jsonl, verdicts.jsonl; base to gsm8k)
READ = (
    "000000 9,000001 4,000010 2,000011 3,000111 4,001000 2,001001 3,001010 1,001011 6,001111 4,010000 2,010010 2,"
    "010011 2,010111 2,011001 2,011010 2,011011 6,011111 3,100011 1,111000 2,111001 2,111010 3,111011 8,111111 9"
)
WRONG = (36 / 133, 2 / 47)  # the guard's error on other answers, and on refusals


# refusals and other safe responses before, the same after (shares), how alike a prompt's two responses are
CASES = {
    "nothing changed": ((0.6, 0.2), (0.165, 0.635), 0.6),
    "fell by 9": ((0.4, 0.4), (0.4, 0.31), 0.98),
    "fell by 9, refuses more": ((0.165, 0.635), (0.6, 0.11), 0.6),
    "as read: rose by 7": None,
}


def judges(
    draws: int, rng: np.random.Generator, cases: Any = CASES, sets: Any = ((140, 20), (140, 40), (1200, 60))
) -> Table:
    """Ours: from labels of so many responses of each stratum and subject; pairs: of both responses to as many prompts
    of each pair of verdicts. The mean change, how often a change is found, and the true one held."""
    rows = []
    for name, case in cases.items():
        true = 6 / 84 if case is None else sum(case[1]) - sum(case[0])
        for n, read in sets:
            found = []
            for _ in range(draws // 5):
                sides = responses(rng, n, case)
                judge, reader = (paired_change(*([row[k] for row in side] for side in sides)) for k in (1, 2))
                ours = corrected_safety(*([row[1::-1] for row in side] for side in sides), labelled(rng, sides, read))
                pairs = corrected_by_pairs(
                    *([row[1] for row in side] for side in sides), labelled_pairs(rng, sides, read)
                )
                line = [judge.value, judge.p < 0.05, reader.p < 0.05]
                for of in (ours, pairs):
                    low, high = of.change.low, of.change.high
                    line += [of.labels / 100, of.change.value, low > 0 or high < 0, low <= true <= high]
                found.append([*line, ours.error.p < 0.05])
            heads = ["judge", "judge finds", "reader finds"]
            heads += [
                f"{of} {what}".strip() for of in ("ours:", "pairs:") for what in ("labels", "change", "finds", "holds")
            ]
            means = map(percent, np.transpose(found))
            rows.append({"case": name, "n": n} | dict(zip((*heads, "errors differ"), means, strict=True)))
    return rows


def pooled(draws: int, rng: np.random.Generator, n: int = 140, read: int = 40) -> Table:
    """Labels of the earlier model alone, so that both models' verdicts are corrected by them."""
    rows = []
    for name, case in (
        ("verdicts mean the same", ((0.4, 0.4), (0.4, 0.4), 0.6)),
        ("they do not", CASES["nothing changed"]),
    ):
        found = []
        for _ in range(draws // 5):
            sides = responses(rng, n, case)
            labels = [label for label in labelled(rng, sides, read) if not label.after]
            change = corrected_safety(*([row[1::-1] for row in side] for side in sides), labels).change
            found.append([change.value, change.low <= 0 <= change.high])
        rows.append({"case": name} | dict(zip(("change", "holds"), map(percent, np.transpose(found)), strict=True)))
    return rows


def responses(rng: np.random.Generator, n: int, case: Any) -> list[list[tuple[bool, bool, bool]]]:
    """(refused, judged safe, safe) of n prompts, before and after."""
    if case is None:
        kinds = [pair.split() for pair in READ.split(",")]
        drawn = rng.choice([kind for kind, _ in kinds], n, p=[int(count) / 84 for _, count in kinds])
        return [[tuple(flag == "1" for flag in kind[at : at + 3]) for kind in drawn] for at in (0, 3)]
    *shares, alike = case
    u = norm.cdf(rng.multivariate_normal([0, 0], [[1, alike], [alike, 1]], n)).T
    sides = []
    for place, (refusals, others) in zip(u, shares, strict=True):
        refused, safe = place < refusals, place < refusals + others
        judged = safe ^ (rng.random(n) < np.where(refused, WRONG[1], WRONG[0]))
        sides.append([tuple(map(bool, row)) for row in zip(refused, judged, safe, strict=True)])
    return sides


def labelled(rng: np.random.Generator, sides: Sequence[Any], read: int) -> list[Label]:
    """A reader's labels of `read` responses of each stratum and subject, or of all if they are fewer."""
    found = []
    for after, side in enumerate(sides):
        for row in drawn(rng, side, [row[:2] for row in side], read):
            found.append(Label(bool(after), verdict=row[1], refused=row[0], safe=row[2]))
    return found


def labelled_pairs(rng: np.random.Generator, sides: Sequence[Any], read: int) -> list[PairLabels]:
    """A reader's labels of both responses to `read` prompts of each pair of verdicts, or to all if they are fewer."""
    pairs = [PairLabels((old[1], new[1]), (old[2], new[2])) for old, new in zip(*sides, strict=True)]
    return drawn(rng, pairs, [pair.verdicts for pair in pairs], read)


def drawn(rng: np.random.Generator, rows: Sequence[Any], strata: Sequence[Any], most: int) -> list[Any]:
    """So many rows of each stratum at random."""
    found = []
    for stratum in sorted(set(strata)):
        members = [row for row, of in zip(rows, strata, strict=True) if of == stratum]
        found += [members[at] for at in rng.permutation(len(members))[:most]]
    return found
