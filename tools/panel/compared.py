"""The harness's results of two models side by side: values with its standard errors, and the paired change. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.measure.stats import Change, paired_change
from stages.lib.measure.written import columns
from stages.lib.report.wording import Table, changed, pvalue


def compared(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each task and metric that both have: both values and their standard errors (None where the harness has
    none); `change` and what follows are there where both models' outcomes are right or wrong, question by question.

    Raises BadInput if the two were not asked the same.
    """
    lines = []
    for task, values in base["results"].items():
        for key, value in values.items():
            metric, comma, rule = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            other = tuned["results"][task]
            line = {
                "task": task,
                "version": base["versions"].get(task),
                "metric": metric,
                "filter": rule,
                "higher_is_better": base.get("higher_is_better", {}).get(task, {}).get(metric),
                "n": base.get("n-samples", {}).get(task, {}).get("effective"),
                "base": value,
                "base_stderr": _stderr(values, metric, rule),
                "tuned": other[key],
                "tuned_stderr": _stderr(other, metric, rule),
            }
            change = _change(task, metric, rule, base, tuned)
            if change:
                flips = {"p": change.p, "lost": change.lost, "gained": change.gained, "pairs": change.n}
                line |= {**columns("change", change), **flips}
            lines.append(line)
    return lines


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each line; a change is in points."""
    return [
        {
            "task": line["task"],
            "metric": line["metric"] + ("" if line["filter"] == "none" else f", {line['filter']}"),
            "better": {True: "higher", False: "lower", None: "-"}[line["higher_is_better"]],
            "n": line["n"] or "-",
            "base": _shown(line["base"], line["base_stderr"]),
            "tuned": _shown(line["tuned"], line["tuned_stderr"]),
            "change, points": changed(_read(line)) if "change" in line else "-",
            "p": pvalue(line["p"]) if "change" in line else "-",
        }
        for line in lines
    ]


def _stderr(values: Mapping[str, Any], metric: str, rule: str) -> float | None:
    found = values.get(f"{metric}_stderr,{rule}")
    return found if isinstance(found, int | float) and found == found else None  # 'N/A', or nan of a single question


def _change(task: str, metric: str, rule: str, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> Change | None:
    sides = [_outcomes(results.get("samples", {}).get(task, []), metric, rule) for results in (base, tuned)]
    if None in sides or not sides[0]:
        return None
    before, after = sides
    if [*before] != [*after]:
        raise BadInput(
            f"{task}: the two models were not asked the same questions: its data changed meanwhile; run it again"
        )
    return paired_change([*before.values()], [*after.values()])


def _outcomes(samples: Sequence[Mapping[str, Any]], metric: str, rule: str) -> dict[tuple[Any, ...], bool] | None:
    """Right or wrong, by question; None where outcomes are something else."""
    own = [sample for sample in samples if sample.get("filter") == rule and metric in sample]
    if any(not isinstance(sample[metric], bool | int | float) or sample[metric] not in (0, 1) for sample in own):
        return None
    ordered = sorted(own, key=lambda sample: sample["doc_id"])
    return {(sample["doc_id"], sample["doc_hash"], sample["target_hash"]): bool(sample[metric]) for sample in ordered}


def _read(line: Mapping[str, Any]) -> Change:
    names = ("change", "change_low", "change_high", "p", "lost", "gained", "pairs")
    return Change(*(line[name] for name in names))


def _shown(value: float, stderr: float | None) -> str:
    return f"{value:.3f}" if stderr is None else f"{value:.3f} ± {stderr:.3f}"
