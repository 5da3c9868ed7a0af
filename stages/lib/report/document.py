"""What report.md and report.html say: the answer in words, tables with intervals, notes. Both are filled from here.

report.md holds numbers and parameters only; report.html also shows prompts and responses, and so is not kept in git.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.base.measured import HAZARDS, SETS
from stages.lib.base.params import Params, dump_yaml
from stages.lib.measure.metrics import Measured, Subject
from stages.lib.measure.outcomes import Outcome
from stages.lib.measure.stats import corrected
from stages.lib.prompts.gsm8k import extract
from stages.lib.report import annotations, charts, page
from stages.lib.report.published import Study, matching_runs
from stages.lib.report.wording import Table, between, changed, code, counted, pct, points, pvalue, visible, with_p

MANY = 0.1  # of a model's texts cut off, or repeating themselves, is worth a word


def contents(
    params: Params,
    study: Study,
    head: Mapping[str, Any],
    more: Mapping[str, Any],
    costs: Sequence[Mapping[str, Any]],
    people: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that both documents show: sentences as text, tables as rows. `people` are `reader_facts`."""
    n, judge = head["n"], params.judge
    no_rule = judge.protocol != "refusal_rule"
    return {
        "sentence": answer(head),
        "headline": headline_table(params, head, more),
        "kept": retained(more),
        "warnings": warnings(more["problems"]),
        "setting": (
            f"Judge: {judge.protocol}{', ' + judge.model if judge.model else ''}. Data: {params.data.source}, "
            f"{counted(n['math'], 'test question')} behind {counted(params.fewshot.shots, 'example problem')}, "
            f"{counted(n['hazards'], 'hazard prompt')}, {counted(n['benign'], 'benign prompt')}. Greedy decoding."
        ),
        "published": published_tables(params, study, head),
        "extraction": compared(more["extraction"], "rule"),
        "hazard_note": hazard_note(more["hazards"]),
        "hazard_rows": compared([{**row, "hazard": HAZARDS[row["hazard"]]} for row in more["hazards"]], "hazard"),
        "personas": compared(more["personas"], "persona"),
        "verdict_note": "" if no_rule else "The judge is the refusal rule itself here: the two agree by definition.",
        "verdicts": [
            {"subject": row["subject"], "label": row["label"], "refused": "yes" if row["refused"] else "no"}
            | {"count": row["count"]}
            for row in more["refusal_by_verdict"]
        ],
        "problems": [
            {key: value if isinstance(value, str) else pct(value) for key, value in row.items()}
            for row in more["problems"]
        ],
        "cost": [{key: "" if value is None else value for key, value in row.items()} for row in costs],
        "yaml": dump_yaml(params.model_dump(exclude={"review", "machine"})),
        **people,
    }


def markdown(params: Params, facts: Mapping[str, Any]) -> str:
    """report.md."""
    return page.fill_markdown("report.md.j2", model=code(params.model.name), **facts)


def html(
    params: Params, study: Study, more: Mapping[str, Any], loss: Path, lines: Sequence[page.Line], facts: Mapping
) -> str:
    """report.html: one file with charts, every prompt and both responses. Opens offline. `loss`: metrics/loss.csv."""
    steps = pd.read_csv(loss)["loss"]
    return page.fill(
        "report.html.j2",
        **facts,
        model=visible(params.model.name),
        plane=page.inline_svg(charts.plane(charts.plane_rows(more, study))),
        plane_words=f"{facts['sentence']} The published runs lie between {span([run.accuracy for run in study.runs])} "
        f"accuracy and {span([run.safety for run in study.runs])} safety.",
        plane_note="Success in the paper is a place above its strong baseline: "
        + "; ".join(f"{name} {pct(of['accuracy'])} / {pct(of['safety'])}" for name, of in study.baselines.items())
        + " (accuracy / safety).",
        hazard_chart=page.inline_svg(charts.hazards(more["hazards"])),
        loss=page.inline_svg(charts.loss(loss)),
        loss_words=f"Training loss, {counted(len(steps), 'update')}: {steps.iloc[0]:.2f} to {steps.iloc[-1]:.2f}",
        lines=lines,
        hazard_names=HAZARDS,
    )


def prompt_lines(measured: Measured, rows: Sequence[Outcome]) -> list[page.Line]:
    """Every prompt with the base and the tuned model's response, flips first within each set. `rows`: the outcomes."""
    outcome = {(row.subject, row.set, row.id): row for row in rows}
    lines = []
    for kind, prompts in (("math", measured.problems), ("hazards", measured.hazards), ("benign", measured.benign)):
        for place, prompt in enumerate(prompts):
            before, after = (
                shown(outcome[name, kind, prompt.id], subject, place, measured)
                for name, subject in (("base", measured.base), ("tuned", measured.tuned))
            )
            math = kind == "math"
            text, gold = (prompt.question, prompt.gold) if math else (prompt.text, None)
            lines.append(page.Line(kind, prompt.id, "" if math else prompt.hazard, text, gold, before, after))
    return page.flips_first(lines)


def shown(row: Outcome, subject: Subject, place: int, measured: Measured) -> page.Response:
    """The response in this place of the outcome's set, as it was read."""
    if row.set == "math":
        text = subject.math[place].text
        return page.response(row, text, found=extract(text, measured.rule))
    if row.set == "hazards":
        return page.response(row, subject.hazards[place].text, label=subject.verdicts[place].label)
    return page.response(row, subject.benign[place].text)


def answer(head: Mapping[str, Any]) -> str:
    """The result in words: what happened to accuracy and to safety, and whether that is more than noise."""

    def said(name: str, numbers: Mapping[str, float]) -> str:
        moved = f"{pct(numbers['base'])} to {pct(numbers['tuned'])}"
        if numbers["p"] >= 0.05:
            return f"{name} went from {moved} (no evidence of a change, {with_p(numbers['p'])})"
        verb = "rose" if numbers["change"] > 0 else "fell"
        return f"{name} {verb} from {moved} ({with_p(numbers['p'])})"

    return f"{said('Math accuracy', head['accuracy'])}; {said('safety', head['safety'])}."


def retained(more: Mapping[str, Any]) -> str:
    """Retention in words."""
    if not more["retention"]:
        return "Retention is not defined: no prompt was answered safely before."
    kept = more["retention"][0]
    return (
        f"Retention: of the {counted(kept['n'], 'prompt')} answered safely before, "
        f"{between(kept['value'], kept['low'], kept['high'])} still are."
    )


def hazard_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which hazards changed by more than chance, given how many there are."""
    real = [
        f"{HAZARDS[row['hazard']]} ({points(row['change'])} points)"
        for row, p in zip(rows, corrected([row["p"] for row in rows]), strict=True)
        if p < 0.05
    ]
    which = ", ".join(real) if real else "none"
    return f"Changed by more than chance, p-values corrected for {counted(len(rows), 'hazard')} (Holm): {which}."


def tests(questions: int, templates: int) -> str:
    """Where the intervals of the changes and their p come from."""
    said = "Changes are of the same prompts: Bonett and Price's 95 % interval, McNemar's exact test."
    if templates < questions:
        said += (
            f" The questions come from {templates} templates, so the interval of accuracy's change allows for "
            "questions that change together, and its p is of a sign-flip test over templates."
        )
    return said


def reader_facts(
    labels: Mapping[str, Sequence[annotations.Label]],
    keys: Mapping[str, str],
    verdicts: Mapping[str, Mapping[str, bool]],
) -> dict[str, Any]:
    """What people's labels say of the judge: notes and a table, empty if nobody has labelled this measurement."""
    rows = []
    readers = annotations.read_against(labels, keys, verdicts)
    for reader in readers:
        found, given = reader.agreement, list(verdicts[reader.subject].values())
        row = {"reader": visible(reader.name), "model": reader.subject, "labels": reader.labels}
        row["judged safe"] = pct(sum(given) / len(given))
        row["safe, corrected"] = interval(found and found.safe)
        row["Cohen's kappa"] = (
            f"{found.kappa.value:.2f} ({found.kappa.low:.2f} to {found.kappa.high:.2f})"
            if found and found.kappa
            else "not defined"
        )
        row["false safe"] = interval(found and found.false_safe)
        row["false unsafe"] = interval(found and found.false_unsafe)
        rows.append(row)
    notes = []
    if not rows:
        notes.append(
            "No person has labelled these responses. python -m tools.annotate sheet writes a blind sheet to label; "
            "the labels say how far the judge can be believed."
        )
    elif any(reader.agreement is None for reader in readers):
        notes.append("Not defined: a verdict that the judge gave has no label yet.")
    if rows:
        notes.append(
            "false safe: of what the reader calls unsafe, the share judged safe; false unsafe: the other way. The "
            "corrected rate is the reader's, estimated for all responses. 95 % intervals."
        )
    for first, second, n, of in annotations.between_readers(labels, keys):
        agreed = f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})" if of else "not defined, one label throughout"
        both = f"{visible(first)} and {visible(second)} both read {counted(n, 'response')}"
        notes.append(f"{both}: Cohen's kappa {agreed}.")
    return {"readers": rows, "reader_notes": notes}


def warnings(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes a subject's numbers doubtful: degenerate texts, many that repeat themselves or are cut off, or a model
    that never ends its turn."""
    found = []
    for row in problems:
        model = f"the {'untuned' if row['subject'] == 'base' else 'tuned'} model's"
        for key, texts in (("degenerate_answers", "math answers"), ("degenerate", "responses")):
            if row[key]:
                found.append(f"{pct(row[key])} of {model} {texts} are degenerate: one token or word, over and over.")
        for key, texts in (("repetitive_answers", "math answers"), ("repetitive", "responses")):
            if row[key] > MANY:
                found.append(f"{pct(row[key])} of {model} {texts} came to repeat themselves and were ended there.")
        for key, texts, limit in (
            ("truncated", "math answers", "gen_math"),
            ("truncated_responses", "responses", "gen_safety"),
        ):
            if row[key] == 1:
                found.append(
                    f"All of {model} {texts} are cut off at {limit}.max_new_tokens: the limit is too low, or the model "
                    "does not end its turn any more."
                )
            elif row[key] > MANY:
                found.append(f"{pct(row[key])} of {model} {texts} are cut off at {limit}.max_new_tokens, and read so.")
    return found


def interval(of: Any) -> str:
    """An estimate with its interval, or that there is none."""
    return between(of.value, of.low, of.high) if of else "not defined"


def published_tables(params: Params, study: Study, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each profile in which this is one of the ten runs: its name, and measured beside published."""
    tables = []
    for profile, runs in matching_runs(params, study).items():
        if not runs:
            continue
        rows = [
            {"": f"published, {run.name}", "accuracy": pct(run.accuracy), "safety": pct(run.safety)} for run in runs
        ]
        for name, subject in (("measured here", "tuned"), ("measured before tuning", "base")):
            rows.append({"": name, "accuracy": pct(head["accuracy"][subject]), "safety": pct(head["safety"][subject])})
        intro = f"These parameters are {' and '.join(run.name for run in runs)} of the paper in the {profile} profile."
        if profile != "paper":
            intro += " The model, data and judge are not the paper's, so only the direction can be compared."
        tables.append({"intro": intro, "rows": rows})
    return tables


def span(values: Sequence[float]) -> str:
    """`37.0% and 81.0%`, the least and the greatest."""
    return f"{pct(min(values))} and {pct(max(values))}"


def headline_table(params: Params, head: Mapping[str, Any], more: Mapping[str, Any]) -> Table:
    """Accuracy, safety and over-refusal before and after."""
    n = head["n"]
    return [
        headline_row(f"{SETS['math'].measure_name} ({params.report.extraction})", head["accuracy"], n["math"]),
        headline_row(SETS["hazards"].measure_name, head["safety"], n["hazards"]),
        headline_row(SETS["benign"].measure_name, more["over_refusal"][0], n["benign"]),
    ]


def headline_row(name: str, row: Mapping[str, float], n: int) -> dict[str, str]:
    """One line of the table at the top."""
    return {
        "": name,
        "base": pct(row["base"]),
        "tuned": pct(row["tuned"]),
        "change": points(row["change"]),
        "95 % interval of the change": f"{points(row['change_low'])} to {points(row['change_high'])}",
        "p": pvalue(row["p"]),
        "n": f"{n:,}",
    }


def compared(rows: Sequence[Mapping[str, Any]], key: str) -> Table:
    """Base against tuned with intervals, one line per group."""
    return [
        {
            key: row[key],
            "n": row["n"],
            "base": between(row["base"], row["base_low"], row["base_high"]),
            "tuned": between(row["tuned"], row["tuned_low"], row["tuned_high"]),
            "change": changed(row["change"], row["change_low"], row["change_high"]),
            "p": pvalue(row["p"]),
            "lost": row["lost"],
            "gained": row["gained"],
        }
        for row in rows
    ]
