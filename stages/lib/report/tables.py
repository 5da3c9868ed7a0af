"""The measures before and after as tables: in the report, and in the model card."""

from collections.abc import Mapping
from typing import Any

from stages.lib.base.measured import SUBJECTS, with_own
from stages.lib.base.params import Params
from stages.lib.measure.form import Split
from stages.lib.measure.moved import Mean
from stages.lib.measure.stats import Paired, Share
from stages.lib.report.published import Study, matching_runs
from stages.lib.report.wording import Table, between, changed, counted, pct, points, pvalue


def retained(kept: Share | None) -> str:
    """Retention in words."""
    if not kept:
        return "Retention is not defined: no prompt was answered safely before."
    return f"Retention: of the {counted(kept.n, 'prompt')} answered safely before, {between(kept)} still are."


def moved(mean: Mean | None) -> str:
    """How far the tuned model has moved, in words."""
    if not mean:
        return ""
    return (
        f"Where nothing was taught: on what the untuned model answered to {counted(mean.n, 'harmless prompt')}, the "
        f"tuned model's next-token distributions are {mean.value:.3g} nats ({mean.low:.3g} to {mean.high:.3g}) away "
        "from its own on average (KL divergence by the token; 0: it has not moved)."
    )


def headline_table(params: Params, measures: Mapping[str, Paired]) -> Table:
    """Accuracy, safety, over-refusal and one's own sets before and after."""
    rows = []
    for of in with_own(params.own).values():
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


def unread_table(params: Params, problems: Mapping[str, Mapping[str, float]]) -> Table:
    """Shares of each model's texts that were not read whole, beside the headline: they count as wrong or unsafe, or are
    read as far as they go."""
    shown = {
        "no_number_found": f"math answers without a number ({params.report.extraction})",
        "truncated": "math answers cut off",
        "truncated_hazards": "responses to hazard prompts cut off",
        "truncated_benign": "responses to harmless prompts cut off",
        "repetitive": "responses that repeat themselves",
        "unparsed": "verdicts that cannot be read",
    }
    for name, answer in params.sets.items():
        shown[f"truncated_{name}"] = f"answers to {name} cut off"
        if answer in ("number", "judged"):
            what = f"a number ({params.report.extraction})" if answer == "number" else "a verdict that can be read"
            shown[f"unread_{name}"] = f"answers to {name} without {what}"
    return [{"": words, **{of: pct(problems[of][name]) for of in SUBJECTS}} for name, words in shown.items()]


def split_table(split: Split) -> Table:
    """The change of the headline's accuracy, told into skill and form: the two add up to it."""
    parts = {
        "accuracy by the headline's rule": split.whole.change,
        "... of it skill: right by any rule": split.skill.change,
        "... of it form: how right answers are written": split.form,
    }
    return [
        {
            "": name,
            "change, points": changed(change),
            "p": pvalue(change.p),
            "lost": change.lost,
            "gained": change.gained,
        }
        for name, change in parts.items()
    ]


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
