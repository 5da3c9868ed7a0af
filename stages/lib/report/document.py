"""What report.md and report.html say: the answer in words, tables with intervals, notes. Both are filled from here.

report.md holds numbers and parameters only; report.html also shows prompts and responses, and so is not kept in git.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.base.measured import HAZARDS, SUBJECTS, with_own
from stages.lib.base.params import Params
from stages.lib.base.sections import says_refusal
from stages.lib.base.texts import code, visible
from stages.lib.base.yaml_files import dump_yaml
from stages.lib.measure.judged import Judged
from stages.lib.measure.metrics import Measured, Numbers
from stages.lib.measure.outcomes import Outcome
from stages.lib.measure.power import change_to_show
from stages.lib.measure.stats import ALPHA, Paired, corrected, is_evidence
from stages.lib.measure.trainings import OverSeeds
from stages.lib.report import page
from stages.lib.report.luck import seeds_table
from stages.lib.report.people import corrected_words
from stages.lib.report.published import Study
from stages.lib.report.sentence import MANY, answer
from stages.lib.report.tables import (
    compared,
    headline_table,
    moved,
    published_tables,
    retained,
    split_table,
    unread_table,
)
from stages.lib.report.wording import counted, pct, points


def contents(
    params: Params,
    study: Study,
    found: Numbers,
    costs: Sequence[Mapping[str, Any]],
    readers: Mapping[str, Any],
    judged: Judged | None,
    seeds: Mapping[str, OverSeeds],
    to_try: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that both documents show: sentences as text, tables as rows. `readers` are `people.reader_facts`;
    `judged`: safety by readers' labels; `seeds`: changes over prompts and training seeds both; `to_try`:
    `tried.what_to_try`, nothing where safety did not fall."""
    judge, asked = params.judge, {name: pair.after.n for name, pair in found.measures.items()}
    no_rule = judge.protocol != "refusal_rule"
    return {
        "sentence": answer(found, judged, seeds),
        "subjects": subjects(params),
        "seeds": seeds_table(seeds),
        "headline": headline_table(params, found.measures),
        "unread": unread_table(params, found.problems),
        "kept": retained(found.retention),
        "corrected": corrected_words(judged),
        "moved": moved(found.moved),
        "warnings": warnings(found.problems, judge.protocol),
        "setting": (
            f"Judge: {judge.protocol}{', ' + judge.model if judge.model else ''}. {refusals_read(judge.protocol)} "
            f"Data: {params.data.source}, "
            f"{counted(asked['accuracy'], 'test question')} behind {counted(params.fewshot.shots, 'example problem')}, "
            f"{counted(asked['safety'], 'hazard prompt')}, {counted(asked['over_refusal'], 'benign prompt')}"
            f"{''.join(f', {asked[name]:,} of {name} ({answer})' for name, answer in found.own.items())}. "
            "Greedy decoding."
        ),
        "published": published_tables(params, study, found.measures),
        "extraction": compared("rule", {**found.extraction, "any of them": found.split.skill}),
        "split": split_table(found.split),
        "hazard_note": hazard_note(found.hazards),
        "hazard_rows": compared("hazard", {HAZARDS[hazard]: pair for hazard, pair in found.hazards.items()}),
        "personas": compared("persona", found.personas),
        "verdict_note": "" if no_rule else "The judge is the refusal rule itself here: the two agree by definition.",
        "verdicts": [
            {"subject": subject, "label": label, "refused": "yes" if refused else "no", "count": count}
            for (subject, label, refused), count in found.verdicts.items()
        ],
        "problems": [
            {"subject": subject, **{name: pct(value) for name, value in shares.items()}}
            for subject, shares in found.problems.items()
        ],
        "cost": [{key: "" if value is None else value for key, value in row.items()} for row in costs],
        "to_try": to_try,
        "yaml": dump_yaml(params.model_dump(exclude={"review", "machine"})),
        **readers,
    }


def markdown(params: Params, facts: Mapping[str, Any]) -> str:
    """report.md."""
    return page.fill_markdown("report.md.j2", model=code(params.model.name), **facts)


def html(
    params: Params,
    study: Study,
    facts: Mapping[str, Any],
    pictures: Mapping[str, Any],
    losses: Sequence[float],
    lines: Sequence[page.Line],
) -> str:
    """report.html: one file with charts, every prompt and both responses. Opens offline. `pictures`: plane, hazards and
    loss; `losses`: the training loss of each update."""
    return page.fill(
        "report.html.j2",
        **facts,
        model=visible(params.model.name),
        pictures={name: page.inline_svg(chart) for name, chart in pictures.items()},
        plane_words=f"{facts['sentence']} The published runs lie between {span([run.accuracy for run in study.runs])} "
        f"accuracy and {span([run.safety for run in study.runs])} safety.",
        plane_note="Success in the paper is a place above its strong baseline: "
        + "; ".join(f"{name} {pct(of['accuracy'])} / {pct(of['safety'])}" for name, of in study.baselines.items())
        + " (accuracy / safety).",
        sets=with_own(params.own),
        loss_words=f"Training loss, {counted(len(losses), 'update')}: {losses[0]:.2f} to {losses[-1]:.2f}"
        if losses
        else "Nothing was trained here.",
        losses=losses,
        lines=lines,
        hazard_names=HAZARDS,
    )


def prompt_lines(measured: Measured, rows: Sequence[Outcome]) -> list[page.Line]:
    """Every prompt with the base and the tuned model's response, flips first within each set. `rows`: the outcomes."""
    outcome = {(row.subject, row.set, row.id): row for row in rows}
    lines = []
    for kind, of in measured.sets.items():
        for place, prompt in enumerate(measured.prompts[kind]):
            before, after = (shown(outcome[name, kind, prompt.id], measured, place) for name in SUBJECTS)
            lines.append(page.Line(of, prompt.id, prompt.hazard, page.asked(prompt), prompt.gold, before, after))
    return page.flips_first(lines)


def shown(row: Outcome, measured: Measured, place: int) -> page.Response:
    """The response in this place of the outcome's set, as it was read."""
    subject = measured.subjects[row.subject]
    label = subject.verdicts[row.set][place].label if row.set in subject.verdicts else None
    return page.response(row, subject.answers[row.set][place].text, label, measured.rule)


def subjects(params: Params) -> list[tuple[str, str, str]]:
    """Which models these are, where it is not the one that was tuned here and its tuning: what stands before a model's
    name, that name, and what stands behind it."""
    tuned, base = params.tuned, params.base
    found = []
    if tuned.model:
        revision = f", revision {tuned.revision}" if tuned.revision else ""
        found.append(("The tuned model was tuned elsewhere: ", tuned.model, f"{revision} (tuned.model)."))
    if base.model:
        revision = f", revision {base.revision}" if base.revision else ""
        said = f"{revision} (base.model), and not what it was tuned from: what changed is not that tuning's alone."
        found.append(("It is compared with another model, ", base.model, said))
    return found


def hazard_note(hazards: Mapping[str, Paired]) -> str:
    """Which hazards changed by more than chance, given how many there are; or that none could have shown it."""
    changes = [pair.change for pair in hazards.values()]
    level = ALPHA / max(len(changes), 1)
    shows = [shown for of in changes if (shown := change_to_show(of.lost, of.gained, of.n, level)) is not None]
    if not shows:
        most, lost, won = max(of.n for of in changes), sum(of.lost for of in changes), sum(of.gained for of in changes)
        few = f"No hazard has more than {counted(most, 'prompt')}, too few to say which changed."
        return f"{few} Over all of them, {lost} were lost and {won} won."
    corrected_p = corrected([change.p for change in changes])
    real = [
        f"{HAZARDS[hazard]} ({points(pair.change.value)} points)"
        for (hazard, pair), p in zip(hazards.items(), corrected_p, strict=True)
        if is_evidence(p)
    ]
    which, of = ", ".join(real) if real else "none", f"p-values corrected for {counted(len(hazards), 'hazard')} (Holm)"
    least = f"So many prompts show {100 * min(shows):.0f} points in four of five tries, at best."
    return f"Changed by more than chance, {of}: {which}. {least}"


def refusals_read(protocol: str) -> str:
    """Who says whether a response refuses."""
    if says_refusal(protocol):
        return "Refusals are the judge's own word; where it gives none, the refusal rule's, which reads English only."
    return "Refusals are the refusal rule's reading, of English only."


def warnings(problems: Mapping[str, Mapping[str, float]], protocol: str) -> list[str]:
    """What makes a subject's numbers doubtful: degenerate texts, many that repeat themselves or are cut off, a model
    that never ends its turn, or one whose refusals cannot be read. `problems`: of each subject, shares by name."""
    found = []
    for subject, shares in problems.items():
        model = f"the {'untuned' if subject == 'base' else 'tuned'} model's"
        if (share := shares["no_number_found"]) > MANY:
            found.append(
                f"{pct(share)} of {model} math answers hold no number by the headline's rule: they count as wrong."
            )
        for key, texts in (("degenerate_answers", "math answers"), ("degenerate", "responses")):
            if share := shares[key]:
                found.append(f"{pct(share)} of {model} {texts} are degenerate: one token or word, over and over.")
        for key, texts in (("repetitive_answers", "math answers"), ("repetitive", "responses")):
            if (share := shares[key]) > MANY:
                found.append(f"{pct(share)} of {model} {texts} came to repeat themselves and were ended there.")
        for key, texts, limit in (
            ("truncated", "math answers", "gen_math"),
            ("truncated_responses", "responses", "gen_safety"),
        ):
            if (share := shares[key]) == 1:
                found.append(
                    f"All of {model} {texts} are cut off at {limit}.max_new_tokens: the limit is too low, or the model "
                    "does not end its turn any more."
                )
            elif share > MANY:
                found.append(f"{pct(share)} of {model} {texts} are cut off at {limit}.max_new_tokens, and read so.")
        if (share := shares["not_english"]) > MANY and not says_refusal(protocol):
            found.append(
                f"{pct(share)} of {model} responses are not in English, and the refusal rule reads English only: "
                "it misses refusals among them, so that over-refusal is too low."
            )
    return found


def span(values: Sequence[float]) -> str:
    """`37.0% and 81.0%`, the least and the greatest."""
    return f"{pct(min(values))} and {pct(max(values))}"
