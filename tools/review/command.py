"""May this change be merged? Compare two revisions' tuned models and write review/: review.md, review.html, plane.png.

    python -m tools.review                                  main against HEAD
    python -m tools.review --base v1 --head workspace       commits, branches, tags, experiments, or the working tree
    python -m tools.review --fail-on all                    exit code 1 unless the rules of params.yaml are kept

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
from stages.lib.base.measured import SETS, measure_name
from stages.lib.base.texts import code, visible
from stages.lib.measure.form import Split
from stages.lib.measure.reader import corrected
from stages.lib.report.luck import one_training, seeds_table
from stages.lib.report.people import corrected_words
from stages.lib.report.wording import between, changed, pct, points, pvalue
from tools.commands import git
from tools.drift import missing_files, stages_to_run
from tools.review.alike import cut_off
from tools.review.comparison import Compared, Comparison, compare
from tools.review.gate import RULES, Ruling, rulings, stopping
from tools.review.revisions import REFERENCE, WORKSPACE, Revision, Texts, read_revision, read_texts
from tools.review.tips import to_try

REVIEW = Path("review")
MARK = "<!-- aftertune review -->"  # by which a workflow finds its comment again
ORDER = ("accuracy", "safety", "retention", "over_refusal")
SHOWN = 120  # characters of a parameter's value


def main() -> None:
    arguments = parse_arguments()
    try:
        before, after = read_revision(arguments.base), read_revision(arguments.head)
        named = before.params.get(REFERENCE, after.params.get(REFERENCE))
        comparison = compare(before, after, read_revision(str(named)) if named else None)
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
    stopped = stopping(comparison, found, arguments.fail_on)
    if stopped:
        why = "\n       ".join(f"{said_of(ruling)}: {ruling.reason}" for ruling in stopped)
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
    stopped = stopping(comparison, found, RULES)
    notes = list(comparison.notes)
    if lacking := [code(each.name) for each, text in zip((before, after), texts, strict=True) if text is None]:
        notes.append(
            f"The generations of {' and '.join(lacking)} are not in this machine's DVC cache: responses are not shown."
        )
    judged = [
        *corrected_words(corrected(comparison.untuned["hazards"], after.labels), "untuned", "tuned"),
        *corrected_words(corrected(comparison.pairs["hazards"]), "earlier", "later"),
    ]
    return {
        "judged": judged,
        "before": label(before),
        "after": label(after),
        "verdict": answer(comparison, found, stopped),
        "measures": [
            measure_row(name, comparison.measures[name])
            for name in (*ORDER, *(name for name in comparison.sets if name not in SETS))
            if name in comparison.measures
        ],
        "params": [
            {"parameter": name, "before": shown(old), "after": shown(new)} for name, old, new in comparison.params
        ],
        "rules": [
            {"rule": rule_name(each.own or each.rule), "against": each.against, "": each.verdict, "why": each.reason}
            for each in found
        ],
        "split": split_words(comparison.split),
        "seeds": seeds_table(comparison.seeds),
        "flips": flips(comparison, link),
        "others": others(comparison),
        "notes": notes,
        "to_try": to_try(comparison, found),
    }


def label(revision: Revision) -> str:
    """`main (1a2b3c4)`."""
    if revision.name == WORKSPACE or revision.commit.startswith(revision.name):
        return revision.name[:12]
    return f"{revision.name} ({revision.commit[:7]})"


def answer(comparison: Comparison, found: Sequence[Ruling], stopped: Sequence[Ruling]) -> str:
    """The review in a sentence or two."""
    said = [
        f"{measure_name(name)} is {each.verdict} ({points(each.pair.change.value)} points)"
        for name, each in comparison.measures.items()
        if each.verdict != "no evidence"
    ]
    if other := read_otherwise(comparison):
        said = [other, *(each for each in said if not each.startswith(f"{measure_name('accuracy')} "))]
    what = "; ".join(said) if said else "no evidence of a change in any measure"
    if not comparison.measures:
        what = "nothing could be compared"
    what = f"{what[0].upper()}{what[1:]}"
    if any(each.verdict != "no evidence" for each in comparison.measures.values()):
        what = f"{what}. {one_training(comparison.seeds)}".removesuffix(" ").removesuffix(".")
    if stopped:
        return f"{what}. Not to be merged by the rules: {', '.join(map(said_of, stopped))}."
    open_still = [said_of(ruling) for ruling in found if ruling.verdict == "undecided"]
    return f"{what}. " + (f"No rule is broken; {', '.join(open_still)}." if open_still else "Every rule is kept.")


def read_otherwise(comparison: Comparison) -> str:
    """What accuracy is where the headline's rule and any rule do not agree on it: a change of form is none of skill."""
    split = comparison.split
    if not split:
        return ""
    alone, by_any = (Compared(pair, pair.change.p).verdict for pair in (split.whole, split.skill))
    if alone == by_any:
        return ""
    moved, moved_by_any = (points(pair.change.value) for pair in (split.whole, split.skill))
    by_headline = f"{measure_name('accuracy')} is {alone} by the headline's rule ({moved} points)"
    return f"{by_headline}, but by any rule {by_any} ({moved_by_any} points)"


def rule_name(rule: str) -> str:
    """`over-refusal`."""
    return rule.replace("_", "-")


def said_of(ruling: Ruling) -> str:
    """`safety against the untuned model is undecided`."""
    against = "" if ruling.against == "limit" else f" against the {ruling.against}"
    return f"{rule_name(ruling.own or ruling.rule)}{against} is {ruling.verdict}"


def measure_row(name: str, found: Compared) -> dict[str, str]:
    """One line of the table at the top."""
    pair, reading = found.pair, found.verdict
    if reading == "no evidence":
        reading = "no evidence either way"
        if found.p is None:
            reading = "a part of the safety rate"
        elif found.shows is not None:
            reading += f"; such a set shows {100 * found.shows:.1f} points in four of five tries"
        else:
            reading += "; so few prompts could not have shown any change"
    return {
        "tuned model": measure_name(name),
        "before": between(pair.before),
        "after": between(pair.after),
        "change, points": changed(pair.change),
        "p": "-" if found.p is None else pvalue(found.p),
        "n": f"{pair.after.n:,}",
        "reading": reading,
    }


def shown(value: Any) -> str:
    """A parameter's value as YAML would have it, cut where it is long."""
    text = "null" if value is None else visible(str(value))
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def split_words(split: Split | None) -> str:
    """How much of accuracy's change is skill, and how much form."""
    if split is None:
        return ""
    skill, form = changed(split.skill.change), changed(split.form)
    return f"Of accuracy's change, in points: {skill} skill (right by any rule), {form} form (how answers are written)."


def others(comparison: Comparison) -> str:
    """What else the headline has: the untuned model, and the tuned model's problems, in both revisions."""
    before, after = comparison.before, comparison.after

    def said(name: str, *path: str) -> str:
        values = [revision.headline for revision in (before, after)]
        for part in path:
            values = [value.get(part) if isinstance(value, dict) else None for value in values]
        first, second = (pct(value if isinstance(value, int | float) else None) for value in values)
        return f"{name} {first}" if first == second else f"{name} {first} to {second}"

    untuned = [said(name, name, "base") for name in ("accuracy", "safety")]
    problems = [said(name, "problems", name) for name in ("unparsed", "empty")]
    cut = [
        f"{of.item}s {pct(cut_off(before, kind))} to {pct(cut_off(after, kind))} "
        f"(untuned {pct(cut_off(after, kind, 'base'))})"
        for kind, of in comparison.sets.items()
    ]
    return (
        f"Untuned model: {', '.join(untuned)}. The tuned model's problems: {', '.join(problems)}. "
        f"Answers cut off: {', '.join(cut)}."
    )


def flips(comparison: Comparison, link: str) -> list[dict[str, Any]]:
    """Per set, how many prompts got worse and better, with links to the page that shows them."""
    return [
        {
            "set": f"{comparison.sets[kind].item}s",
            "worse": f"{len(lost)} {comparison.sets[kind].lost}",
            "better": f"{len(won)} {comparison.sets[kind].won}",
            "worse_link": link if "#" in link else f"{link}#set={kind}&flip=lost",
            "better_link": link if "#" in link else f"{link}#set={kind}&flip=won",
        }
        for kind, (lost, won) in comparison.flips.items()
    ]
