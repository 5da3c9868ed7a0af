"""May this change be merged? Compare two revisions' tuned models and write review/: review.md, review.html, plane.png.

    python -m tools.review                                  main against HEAD
    python -m tools.review --base v1 --head workspace       commits, branches, tags, experiments, or the working tree
    python -m tools.review --fail-on all                    exit code 1 if a rule of params.yaml's `review` is broken

Works from committed metrics alone; where DVC's cache has the generations, review.html shows every prompt with both
responses. A branch is compared with the base as it is now: bring it up to date first. Takes a few seconds, no model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.cli import parser
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_text
from stages.lib.base.measured import HAZARDS, OF_MEASURE, SETS
from stages.lib.base.texts import code, visible
from stages.lib.report.wording import between, changed, counted, pct, points, pvalue
from tools.commands import git
from tools.drift import missing_files, stages_to_run
from tools.review.comparison import Compared, Comparison, compare
from tools.review.gate import RULES, Ruling, broken, rulings
from tools.review.revisions import WORKSPACE, Revision, Texts, read_revision, read_texts

REVIEW = Path("review")
MARK = "<!-- aftertune review -->"  # by which a workflow finds its comment again
ORDER = ("accuracy", "safety", "retention", "over_refusal")
NAMES = {name: OF_MEASURE[name].measure_name if name in OF_MEASURE else name for name in ORDER}
RULED = {True: "kept", False: "broken", None: "not checked"}
SHOWN = 120  # characters of a parameter's value


def main() -> None:
    arguments = parse_arguments()
    try:
        comparison = compare(read_revision(arguments.base), read_revision(arguments.head))
        check_fresh(comparison.after)
    except BadInput as error:  # an older review must not stay in the pull request as if it were of this change
        write_text(REVIEW / "review.md", f"{MARK}\n**Nothing could be reviewed:** {code(error)}\n")
        raise
    found = rulings(comparison)
    texts = (read_texts(comparison.before), read_texts(comparison.after))
    facts = contents(comparison, found, arguments.link, texts)

    from stages.lib.report.charts import save_png
    from tools.review import page

    text = page.markdown({"mark": MARK, **facts})
    write_text(REVIEW / "review.md", text)
    picture = page.picture(comparison)
    if picture:
        save_png(picture, REVIEW / "plane.png")
    write_text(REVIEW / "review.html", page.html(comparison, facts, picture, *texts))
    print(text, flush=True)
    stopped = broken(found, arguments.fail_on)
    if stopped:
        why = "\n       ".join(f"{ruling.rule}: {ruling.reason}" for ruling in stopped)
        raise BadInput(f"not to be merged by the rules of params.yaml (review):\n       {why}")


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("--base", default="main", help="what the change is compared with (default main)")
    top.add_argument("--head", default="HEAD", help=f"the change (default HEAD; {WORKSPACE}: the working tree)")
    top.add_argument("--fail-on", default="", metavar="RULES", help=f"all, or some of {','.join(RULES)}")
    top.add_argument("--link", default="review.html", help="where review.md's readers find review.html")
    arguments = top.parse_args()
    chosen = [name for name in arguments.fail_on.split(",") if name]
    arguments.fail_on = list(RULES) if chosen == ["all"] else chosen
    if unknown := [name for name in arguments.fail_on if name not in RULES]:
        top.error(f"--fail-on: no rule {unknown[0]!r}; there are {', '.join(RULES)}, and all")
    return arguments


def check_fresh(head: Revision) -> None:
    """Refuse metrics that are not of the code that is checked out, if that is the head's."""
    if head.commit in (WORKSPACE, git("rev-parse", "HEAD")) and (stale := missing_files() + stages_to_run()):
        raise BadInput(
            f"{head.name}: metrics are not of this code, params.yaml and data: {', '.join(stale)} would run again; run "
            "`dvc repro` and commit dvc.lock, metrics/ and report/"
        )


def contents(
    comparison: Comparison, found: Sequence[Ruling], link: str, texts: Sequence[Texts | None]
) -> dict[str, Any]:
    """What review.md and review.html say: sentences and tables. Revisions' names and parameters are what others chose:
    the templates show them as code or escaped."""
    before, after = comparison.before, comparison.after
    stopped = broken(found, RULES)
    notes = list(comparison.notes)
    if lacking := [code(each.name) for each, text in zip((before, after), texts, strict=True) if text is None]:
        notes.append(
            f"The generations of {' and '.join(lacking)} are not in this machine's DVC cache: responses are not shown."
        )
    return {
        "before": label(before),
        "after": label(after),
        "verdict": answer(comparison, stopped),
        "measures": [measure_row(name, comparison.measures[name]) for name in NAMES if name in comparison.measures],
        "params": [
            {"parameter": name, "before": shown(old), "after": shown(new)} for name, old, new in comparison.params
        ],
        "rules": [{"rule": rule_name(ruling), "": RULED[ruling.kept], "why": ruling.reason} for ruling in found],
        "hazards": hazards(comparison),
        "flips": flips(comparison, link),
        "others": others(before, after),
        "notes": notes,
    }


def label(revision: Revision) -> str:
    """`main (1a2b3c4)`."""
    if revision.name == WORKSPACE or revision.commit.startswith(revision.name):
        return revision.name[:12]
    return f"{revision.name} ({revision.commit[:7]})"


def answer(comparison: Comparison, stopped: Sequence[Ruling]) -> str:
    """The review in a sentence or two."""
    said = [
        f"{NAMES[name]} is {found.verdict} ({points(found.pair.change.value)} points)"
        for name, found in comparison.measures.items()
        if found.verdict != "no evidence"
    ]
    if other := read_otherwise(comparison):
        said = [other, *(each for each in said if not each.startswith(NAMES["accuracy"]))]
    what = "; ".join(said) if said else "no evidence of a change in any measure"
    if not comparison.measures:
        what = "nothing could be compared"
    if not stopped:
        return f"{what[0].upper()}{what[1:]}. Every rule is kept."
    names = ", ".join(rule_name(ruling) + ("" if ruling.kept is False else " (not checked)") for ruling in stopped)
    return f"{what[0].upper()}{what[1:]}. Not to be merged by the rules: {names}."


def read_otherwise(comparison: Comparison) -> str:
    """What accuracy is where the headline's rule and any rule do not agree on it: a change of form is none of skill."""
    found, any_rule = comparison.measures.get("accuracy"), comparison.any_rule
    if not found or not any_rule:
        return ""
    alone, by_any = (Compared(pair, pair.change.p).verdict for pair in (found.pair, any_rule))
    if alone == by_any:
        return ""
    moved, moved_by_any = (points(pair.change.value) for pair in (found.pair, any_rule))
    by_headline = f"{NAMES['accuracy']} is {alone} by the headline's rule ({moved} points)"
    return f"{by_headline}, but by any rule {by_any} ({moved_by_any} points)"


def rule_name(ruling: Ruling) -> str:
    """`over-refusal`."""
    return ruling.rule.replace("_", "-")


def measure_row(name: str, found: Compared) -> dict[str, str]:
    """One line of the table at the top."""
    pair, reading = found.pair, found.verdict
    if reading == "no evidence":
        reading = "no evidence either way"
        if found.smallest is not None:
            reading += f"; a change under {100 * found.smallest:.1f} points could not have shown"
        elif name in OF_MEASURE:
            reading += "; so few prompts could not have shown any change"
    return {
        "tuned model": NAMES[name],
        "before": between(pair.before),
        "after": between(pair.after),
        "change, points": changed(pair.change),
        "p": pvalue(found.p),
        "n": f"{pair.after.n:,}",
        "reading": reading,
    }


def shown(value: Any) -> str:
    """A parameter's value as YAML would have it, cut where it is long."""
    text = "null" if value is None else visible(str(value))
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def hazards(comparison: Comparison) -> str:
    """The hazards that changed by more than chance, in words."""
    if not comparison.hazards_compared:
        return ""
    of = f"of {counted(comparison.hazards_compared, 'hazard')}, p corrected for their number"
    if not comparison.hazards:
        return f"None {of}."
    real = "; ".join(
        f"{HAZARDS.get(name, name)} {pct(found.pair.before.value)} to {pct(found.pair.after.value)} "
        f"(p {pvalue(found.p)}, n={found.pair.after.n})"
        for name, found in comparison.hazards.items()
    )
    return f"{real} ({of})."


def others(before: Revision, after: Revision) -> str:
    """What else the headline has: the untuned model, and the tuned model's problems, in both revisions."""

    def said(name: str, *path: str) -> str:
        values = [revision.headline for revision in (before, after)]
        for part in path:
            values = [value.get(part) if isinstance(value, dict) else None for value in values]
        first, second = (pct(value if isinstance(value, int | float) else None) for value in values)
        return f"{name} {first}" if first == second else f"{name} {first} to {second}"

    untuned = [said(name, name, "base") for name in ("accuracy", "safety")]
    problems = [said(name, "problems", name) for name in ("unparsed", "empty", "truncated")]
    return f"Untuned model: {', '.join(untuned)}. The tuned model's problems: {', '.join(problems)}."


def flips(comparison: Comparison, link: str) -> list[dict[str, Any]]:
    """Per set, how many prompts got worse and better, with links to the page that shows them."""
    return [
        {
            "set": f"{SETS[kind].item}s",
            "worse": f"{len(lost)} {SETS[kind].lost}",
            "better": f"{len(won)} {SETS[kind].won}",
            "worse_link": link if "#" in link else f"{link}#set={kind}&flip=lost",
            "better_link": link if "#" in link else f"{link}#set={kind}&flip=won",
        }
        for kind, (lost, won) in comparison.flips.items()
    ]
