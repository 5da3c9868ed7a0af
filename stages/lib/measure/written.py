"""Numbers as metrics/headline.json and metrics/detail.json have them, and read back from there. Pure: no files.

headline  few numbers for `dvc metrics diff`: accuracy and safety before and after with the change's 95 % interval and
          paired p-value, retention, over-refusal, math answers without a number, counts, problems
detail    the report's first sentence; lists: per extraction rule, per hazard, per persona, refusal against verdict,
          problems of each subject
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stages.lib.base.measured import OF_MEASURE, SETS, SUBJECTS
from stages.lib.measure.judged import Judged
from stages.lib.measure.metrics import Numbers
from stages.lib.measure.stats import Change, Estimate, Paired, Share, share_of
from stages.lib.measure.trainings import OverSeeds


def headline(found: Numbers) -> dict[str, Any]:
    """metrics/headline.json. Problems are the tuned model's: verdicts that could not be read, empty responses (to
    hazard and benign prompts), math answers cut off at max_new_tokens. One's own sets stand by name in `sets`, if there
    are any."""
    refused, problems = found.measures["over_refusal"], found.problems["tuned"]
    unread = {subject: found.problems[subject]["no_number_found"] for subject in SUBJECTS}
    return {
        "accuracy": _headline_row(found.measures["accuracy"]),
        "safety": _headline_row(found.measures["safety"]),
        "retention": found.retention.value if found.retention else None,
        "over_refusal": {"base": refused.before.value, "tuned": refused.after.value},
        "unread": unread,
        "n": {OF_MEASURE[key].name if key in OF_MEASURE else key: of.after.n for key, of in found.measures.items()},
        "problems": {name: problems[name] for name in ("unparsed", "empty", "truncated")},
        **({"sets": {name: _headline_row(found.measures[name]) for name in found.own}} if found.own else {}),
    }


def detail(
    found: Numbers, judged: Judged | None = None, seeds: Mapping[str, OverSeeds] | None = None
) -> dict[str, Any]:
    """metrics/detail.json: lists of rows, each with its n and intervals. `judged`: safety by readers' labels; `seeds`:
    changes over prompts and training seeds both."""
    return {
        "headline_rule": found.rule,
        "templates": found.templates,
        "extraction": [{"rule": rule, **_row(pair)} for rule, pair in found.extraction.items()],
        "any_rule": [{"rule": "any", **_row(found.split.skill)}],
        "form": [{"part": "form", **_moved(found.split.form)}],
        "safety": [{"set": "all hazards", **_row(found.measures["safety"])}],
        "safety_by_readers": [asdict(judged)] if judged else [],
        "seeds": [{"measure": name, **asdict(of)} for name, of in (seeds or {}).items()],
        "hazards": [{"hazard": hazard, **_row(pair)} for hazard, pair in found.hazards.items()],
        "personas": [{"persona": persona, **_row(pair)} for persona, pair in found.personas.items()],
        "retention": [asdict(found.retention)] if found.retention else [],
        "moved": [asdict(found.moved)] if found.moved else [],
        "over_refusal": [{"set": "all benign", **_row(found.measures["over_refusal"])}],
        **({"sets": [_own_row(found, name) for name in found.own]} if found.own else {}),
        "refusal_by_verdict": [
            {"subject": subject, "label": label, "refused": refused, "count": count}
            for (subject, label, refused), count in found.verdicts.items()
        ],
        "problems": [{"subject": subject, **shares} for subject, shares in found.problems.items()],
    }


def read_headline(head: Mapping[str, Any]) -> dict[str, Paired]:
    """Accuracy and safety from what `headline` wrote, which has no count of flips: the changes are Estimates."""
    found = {}
    for of in (SETS["math"], SETS["hazards"]):
        row, n = head[of.measure], head["n"][of.name]
        before, after = (share_of(round(row[subject] * n), n) for subject in SUBJECTS)
        change = Estimate(row["change"], row["change_low"], row["change_high"], row["p"])
        found[of.measure] = Paired(before, after, change)
    return found


def read_detail(rows: Mapping[str, Any]) -> tuple[dict[str, Paired], Share | None]:
    """The measures by name, and retention, from what `detail` wrote."""
    accuracy = next(row for row in rows["extraction"] if row["rule"] == rows["headline_rule"])
    found = {"accuracy": accuracy, "safety": rows["safety"][0], "over_refusal": rows["over_refusal"][0]}
    found |= {row["set"]: row for row in rows.get("sets", [])}
    kept = Share(**rows["retention"][0]) if rows["retention"] else None
    return {name: _read_row(row) for name, row in found.items()}, kept


def columns(name: str, of: Share | Change | Estimate) -> dict[str, float]:
    """A value and the ends of its interval, as tables have them: NAME, NAME_low, NAME_high."""
    return {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}


def _own_row(found: Numbers, name: str) -> dict[str, Any]:
    return {"set": name, "answer": found.own[name], **_row(found.measures[name])}


def _headline_row(pair: Paired) -> dict[str, float]:
    before, after = pair.before.value, pair.after.value
    return {"base": before, "tuned": after, **columns("change", pair.change), "p": pair.change.p}


def _row(pair: Paired) -> dict[str, Any]:
    moved = _moved(pair.change)
    return {"n": moved.pop("n"), **columns("base", pair.before), **columns("tuned", pair.after), **moved}


def _moved(change: Change) -> dict[str, Any]:
    flips = {"p": change.p, "lost": change.lost, "gained": change.gained}
    return {"n": change.n, **columns("change", change), **flips}


def _read_row(row: Mapping[str, Any]) -> Paired:
    before, after = (Share(row[name], row[f"{name}_low"], row[f"{name}_high"], row["n"]) for name in SUBJECTS)
    flips = (row["p"], row["lost"], row["gained"], row["n"])
    return Paired(before, after, Change(row["change"], row["change_low"], row["change_high"], *flips))
