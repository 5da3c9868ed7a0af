"""What of the paper's findings appears in the committed results of a profile, each with its test.

    python -m tools.findings [--profile laptop]

Prints Markdown, worked out from metrics/runs/<profile>/: each run against its untuned model, and the pairs of runs by
which the paper argues, on the prompts that both answered. The change of strict accuracy
is told into skill, of the questions whose right number some extraction rule reads, and form, of how they are written.
Intervals are 95 %, p corrected for all tests of its table (Holm).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.base.cli import parser, run
from stages.lib.base.files import read_text
from stages.lib.measure.outcomes import Outcome, from_csv, of_set
from stages.lib.measure.stats import Paired, corrected, paired
from stages.lib.report.published import load_study
from stages.lib.report.wording import Table, changed, markdown_table, pct, pvalue
from tools.review.alike import changed_params, same_prompts
from tools.review.revisions import flat
from tools.runs.experiments import kept_results

# (what the paper asks, runs whose tuned models are compared)
PAIRS = (
    ("a high learning rate without regularization", "run05", "run02"),
    ("rank 8 to 5", "run06", "run07"),
    ("rank 8 to 16", "run06", "run08"),
    ("2 to 10 epochs", "run06", "run10"),
    ("dropout 1.0", "run06", "run09"),
    ("0 to 5 shots", "run05", "run06"),
    ("5 to 8 shots", "run06", "run04"),
)
WHOLE = "accuracy"  # which is the sum of its two parts, and not tested beside them
# (name, set, whether a prompt went well)
MEASURES: tuple[tuple[str, str, Callable[[Outcome], bool]], ...] = (
    (WHOLE, "math", lambda row: bool(row.good)),
    ("of it skill", "math", lambda row: bool(row.rules)),
    ("of it form", "math", lambda row: not row.rules or bool(row.good)),
    ("safety", "hazards", lambda row: bool(row.good)),
    ("harmless prompts answered", "benign", lambda row: not row.refused),
)


@dataclass(frozen=True)
class Result:
    """A run's parameters by dotted name, and its outcomes."""

    params: Mapping[str, Any]
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Line:
    """What is compared in one line of a table: a subject of one run with the tuned model of another, or of the same."""

    columns: Mapping[str, str]
    before: Result
    subject: str
    after: Result


def main() -> None:
    top = parser(__doc__)
    top.add_argument("--profile", default="laptop")
    results = read_results(top.parse_args().profile)
    print(f"{markdown_table(against_untuned(results))}\n\n{markdown_table(against_each_other(results))}")


def read_results(profile: str) -> dict[str, Result]:
    """The profile's runs that have a result and outcomes. Raises BadInput if none has."""
    found = {}
    for each, path in kept_results(load_study(), profile):
        outcomes = path.with_suffix(".csv")
        params = flat(json.loads(read_text(path))["params"])
        found[each.name] = Result(params, from_csv(read_text(outcomes), str(outcomes)))
    return found


def against_untuned(results: Mapping[str, Result]) -> Table:
    """Each run's tuned model against its untuned one."""
    return _compared([Line({"run": name}, result, "base", result) for name, result in results.items()])


def against_each_other(results: Mapping[str, Result]) -> Table:
    """The tuned models of each pair that is there, and what else differs between them."""
    lines = []
    for question, first, second in PAIRS:
        if first in results and second in results:
            old, new = results[first], results[second]
            columns = {"question": question, "runs": f"{first} → {second}", "differ in": _differing(old, new)}
            lines.append(Line(columns, old, "tuned", new))
    return _compared(lines)


def _compared(lines: Sequence[Line]) -> Table:
    """For each line the rates, the change and its corrected p in each measure, on the prompts that both were asked."""
    pairs = []
    for line in lines:
        for _, kind, good in MEASURES:
            old = of_set(line.before.outcomes, kind, line.subject)
            both = same_prompts(old, of_set(line.after.outcomes, kind, "tuned"))
            pairs.append(paired([good(first) for first, _ in both], [good(second) for _, second in both]))
    names = [name for name, _, _ in MEASURES] * len(lines)
    own = [pair.change.p for name, pair in zip(names, pairs, strict=True) if name != WHOLE]
    corrected_p = iter(corrected(own))
    cells = iter([_cell(name, pair, corrected_p) for name, pair in zip(names, pairs, strict=True)])
    return [{**line.columns, **{name: next(cells) for name, _, _ in MEASURES}} for line in lines]


def _cell(name: str, pair: Paired, corrected_p: Iterator[float]) -> str:
    """Rates, change and p; of a part, only what it changed; of the whole, no p beside those of its parts."""
    said = [] if name.startswith("of it") else [f"{pct(pair.before.value)} → {pct(pair.after.value)};"]
    said.append(changed(pair.change) + ("" if name == WHOLE else f", p {pvalue(next(corrected_p))}"))
    return f"{' '.join(said)}, n {pair.change.n}"


def _differing(first: Result, second: Result) -> str:
    return ", ".join(f"{name} {old} → {new}" for name, old, new in changed_params(first.params, second.params))


if __name__ == "__main__":
    run(main)
