"""The measures before and after as sentences and tables: in the report, and in the model card."""

from collections.abc import Mapping
from typing import Any

from stages.lib.base.measured import SETS
from stages.lib.base.params import Params
from stages.lib.measure.stats import Paired, Share, is_evidence
from stages.lib.report.published import Study, matching_runs
from stages.lib.report.wording import Table, between, changed, counted, pct, points, pvalue, with_p


def answer(measures: Mapping[str, Paired]) -> str:
    """The result in words: what happened to accuracy and to safety, and whether that is more than noise."""

    def said(name: str, pair: Paired) -> str:
        moved, change = f"{pct(pair.before.value)} to {pct(pair.after.value)}", pair.change
        if not is_evidence(change.p):
            return f"{name} went from {moved} (no evidence of a change, {with_p(change.p)})"
        verb = "rose" if change.value > 0 else "fell"
        return f"{name} {verb} from {moved} ({with_p(change.p)})"

    return f"{said('Math accuracy', measures['accuracy'])}; {said('safety', measures['safety'])}."


def retained(kept: Share | None) -> str:
    """Retention in words."""
    if not kept:
        return "Retention is not defined: no prompt was answered safely before."
    return f"Retention: of the {counted(kept.n, 'prompt')} answered safely before, {between(kept)} still are."


def headline_table(params: Params, measures: Mapping[str, Paired]) -> Table:
    """Accuracy, safety and over-refusal before and after."""
    rows = []
    for of in SETS.values():
        pair = measures[of.measure]
        read = f" ({params.report.extraction})" if of.name == "math" else ""
        rows.append(
            {
                "": of.measure_name + read,
                "base": pct(pair.before.value),
                "tuned": pct(pair.after.value),
                "change": points(pair.change.value),
                "95 % interval of the change": f"{points(pair.change.low)} to {points(pair.change.high)}",
                "p": pvalue(pair.change.p),
                "n": f"{pair.after.n:,}",
            }
        )
    return rows


def compared(key: str, pairs: Mapping[str, Paired]) -> Table:
    """Base against tuned with intervals, one line per group; `key` heads the groups' names."""
    return [
        {
            key: name,
            "n": pair.after.n,
            "base": between(pair.before),
            "tuned": between(pair.after),
            "change": changed(pair.change),
            "p": pvalue(pair.change.p),
            "lost": pair.change.lost,
            "gained": pair.change.gained,
        }
        for name, pair in pairs.items()
    ]


def published_tables(params: Params, study: Study, measures: Mapping[str, Paired]) -> list[dict[str, Any]]:
    """For each profile in which this is one of the ten runs: its name, and measured beside published."""

    def row(name: str, accuracy: float, safety: float) -> dict[str, str]:
        return {"": name, "accuracy": pct(accuracy), "safety": pct(safety)}

    accuracy, safety = measures["accuracy"], measures["safety"]
    tables = []
    for profile, runs in matching_runs(params, study).items():
        if not runs:
            continue
        rows = [row(f"published, {run.name}", run.accuracy, run.safety) for run in runs]
        rows.append(row("measured here", accuracy.after.value, safety.after.value))
        rows.append(row("measured before tuning", accuracy.before.value, safety.before.value))
        intro = f"These parameters are {' and '.join(run.name for run in runs)} of the paper in the {profile} profile."
        if profile != "paper":
            intro += " The model, data and judge are not the paper's, so only the direction can be compared."
        tables.append({"intro": intro, "rows": rows})
    return tables
