"""review.md and review.html from what a review found, and its picture of both tuned models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.base.measured import HAZARDS
from stages.lib.base.texts import visible
from stages.lib.measure.outcomes import Outcome, is_good, of_set
from stages.lib.measure.stats import share
from stages.lib.report import page
from stages.lib.report.charts import Point, plane
from stages.lib.report.published import load_study
from tools.review.comparison import Comparison
from tools.review.revisions import Revision, Texts

TEMPLATES = Path(__file__).parent / "templates"


def markdown(facts: Mapping[str, Any]) -> str:
    """review.md."""
    return page.fill_markdown("review.md.j2", [TEMPLATES], **facts).rstrip() + "\n"


def html(
    comparison: Comparison, facts: Mapping[str, Any], picture: Any, before: Texts | None, after: Texts | None
) -> str:
    """review.html; `picture` as `picture` has it."""
    return page.fill(
        "review.html.j2",
        [TEMPLATES],
        **facts,
        plane=picture and page.inline_svg(picture),
        lines=lines(comparison, before, after),
        hazard_names=HAZARDS,
        sets=comparison.sets,
    )


def picture(comparison: Comparison) -> Any:
    """Accuracy and safety of all their prompts: the head's untuned model, both tuned ones. None if there are none."""
    shown = [
        (comparison.after, "base", "untuned"),
        (comparison.before, "tuned", f"before: {comparison.before.name}"),
        (comparison.after, "tuned", f"after: {comparison.after.name}"),
    ]
    if not (comparison.pairs["math"] and comparison.pairs["hazards"]):
        shown.pop(1)  # not the same measurement: no picture of a change
    points = []
    for revision, subject, name in shown:
        accuracy, safety = (
            share([is_good(row) for row in of_set(revision.outcomes, kind, subject)]) for kind in ("math", "hazards")
        )
        if not (accuracy and safety):
            return None
        points.append(Point(subject, visible(name)[:40], accuracy, safety))
    return plane(points, load_study().baselines)


def lines(comparison: Comparison, before: Texts | None, after: Texts | None) -> list[page.Line]:
    """Each compared prompt with both tuned models' responses, flips first within each set."""
    made = []
    for kind, pairs in comparison.pairs.items():
        for old, new in pairs:
            asked = next((texts.prompts.get((kind, new.id)) for texts in (after, before) if texts), None)
            first, second = response(old, before, comparison.before), response(new, after, comparison.after)
            text, gold = (page.asked(asked), asked.gold) if asked else (None, None)
            made.append(page.Line(comparison.sets[kind], new.id, new.hazard, text, gold, first, second))
    return page.flips_first(made)


def response(row: Outcome, texts: Texts | None, revision: Revision) -> page.Response:
    """One outcome with its text and label, where they are at hand."""
    text = texts and texts.responses.get((row.set, row.id))
    label = texts and texts.labels.get(row.id)
    return page.response(row, text, label, revision.params.get("report.extraction"))
