"""Which prompts two revisions were both asked, what makes their outcomes other measurements, and what else a reader
must know before they are compared. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.base.made import differences
from stages.lib.base.measured import PromptSet
from stages.lib.base.params import defaults
from stages.lib.base.sections import says_refusal
from stages.lib.base.texts import code
from stages.lib.measure.outcomes import Outcome, is_good, of_set, sets_of
from stages.lib.report.sentence import MANY
from stages.lib.report.wording import counted, pct
from tools.review.revisions import Revision

MISSING = "(none)"
ANSWERS = {"math.jsonl": ("gen_math", "answers"), "safety.jsonl": ("gen_safety", "responses")}  # written by, called
Pairs = Sequence[tuple[Outcome, Outcome]]  # of the same prompts, before and after


def sets_asked(*revisions: Revision) -> dict[str, PromptSet]:
    """The sets that one of the revisions asked, the built-in ones first."""
    return sets_of(*(revision.outcomes for revision in revisions))


def answered_by(kind: str, *revisions: Revision) -> set[str]:
    """What answers a set of one's own in the revisions: number, choice, text or judged. Nothing for a built-in one."""
    return {str(each.params[f"sets.{kind}"]) for each in revisions if f"sets.{kind}" in each.params}


def both_asked(before: Revision, after: Revision, kind: str, subject: str) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of the prompts of a set that both revisions asked with the same text."""
    return same_prompts(of_set(before.outcomes, kind, subject), of_set(after.outcomes, kind, subject))


def same_prompts(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of what both were asked with the same text, side by side."""
    asked = {row.id: row for row in before}
    return [(asked[row.id], row) for row in after if row.id in asked and asked[row.id].prompt == row.prompt]


def lacking(before: Revision, after: Revision, kind: str) -> int:
    """How many prompts of `before` were not asked in `after`, or with another text."""
    return len(of_set(before.outcomes, kind, "tuned")) - len(both_asked(before, after, kind, "tuned"))


def changed_params(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, before, after) of each parameter that differs. One that is not there, as in older commits, is what it is
    without effect; MISSING where this code knows no such parameter."""
    known = defaults()
    names = [*after, *(name for name in before if name not in after)]
    both = [(name, *(each.get(name, known.get(name, MISSING)) for each in (before, after))) for name in names]
    return [row for row in both if row[1] != row[2]]


def other_measurement(
    params: Sequence[str], before: Revision, after: Revision, tuned: Mapping[str, Pairs]
) -> dict[str, str]:
    """The sets whose outcomes were read in another way in the two revisions, and why. `tuned`: what both were asked."""
    found = {}
    sets = sets_asked(before, after)
    judged = [kind for kind, of in sets.items() if of.verdicts and kind != "benign"]
    for kind, of in sets.items():
        own = answered_by(kind, before, after)
        if len(own) > 1:
            found[kind] = f"{of.item}s are answered in another way (sets.{kind})"
        elif "report.extraction" in params and (kind == "math" or "number" in own):
            found[kind] = f"{of.measure} was read by another rule (report.extraction)"
        stage, texts = ANSWERS[of.answers]
        ended = sorted({f"{stage}.max_new_tokens", f"{stage}.end_repetition"} & set(params))
        if ended and "choice" not in own:
            found.setdefault(kind, f"{texts} were ended in another way ({', '.join(ended)})")
    asked = {f"judge.{key}" for key in ("protocol", "model", "revision", "quantization")} & set(params)
    if other := sorted(asked | {"judge.controversial"} & set(params)):
        found |= {kind: f"{sets[kind].measure} was judged in another way ({', '.join(other)})" for kind in judged}
    if asked and guard_says_refusal(before, after):
        found.setdefault("benign", f"refusals were read in another way ({', '.join(sorted(asked))})")
    for kind, why in made_otherwise(params, before, after, tuned).items():
        found.setdefault(kind, why)
    guard, embedded = "models/embedded/guard", str(after.params.get("judge.model")).startswith("embedded/")
    if embedded and before.lock.get(guard) != after.lock.get(guard):
        for kind in judged:
            found.setdefault(kind, f"{sets[kind].measure} was judged by another guard ({guard})")
    return found


def guard_says_refusal(*revisions: Revision) -> bool:
    """Whether the guard of one of these revisions says itself what a refusal is."""
    return any(says_refusal(str(each.params.get("judge.protocol"))) for each in revisions)


# what of how answers were made (base/made.py) a changed parameter asks for, in the model's section or the judge's
ASKED_FOR = {
    "name": ("content", "template", "rendering"),
    "model": ("content", "template", "rendering"),
    "revision": ("content", "template", "rendering"),
    "files": ("content", "template", "rendering"),
    "quantization": ("quantization",),
    "dtype": ("dtype",),
}


def made_otherwise(
    params: Sequence[str], before: Revision, after: Revision, tuned: Mapping[str, Pairs]
) -> dict[str, str]:
    """The sets that were not asked, answered or judged alike, though no parameter says so: other weights or another
    template under the same name, another engine. What a changed parameter asked for is what the review is about."""
    known = before.made.keys() & after.made.keys()
    found = {}
    for kind, of in sets_asked(before, after).items():
        files = [(of.answers, "model")]
        if kind != "benign" or guard_says_refusal(before, after):  # else the guard is not asked about them
            files += [(of.verdicts, "judge")] if of.verdicts and "judge.protocol" not in params else []
        for file, owner in files:
            expected = {field for key, fields in ASKED_FOR.items() if f"{owner}.{key}" in params for field in fields}
            if file in known:
                new = after.made[file].model_copy(update={f: getattr(before.made[file], f) for f in expected})
                if unlike := differences(before.made[file], new).incomparable:
                    found.setdefault(kind, f"{file} was not made alike: {'; '.join(unlike)}")
        if not {"model.name", "model.revision", "model.files", "fewshot.shots", "fewshot.system.testing"} & set(params):
            rendered = [(old.asked, new.asked) for old, new in tuned[kind]]
            if any(one and two and one != two for one, two in rendered):
                found.setdefault(kind, f"{of.item}s were rendered otherwise")
    return found


def notes(before: Revision, after: Revision, tuned: Mapping[str, Sequence], unlike: Mapping[str, str]) -> list[str]:
    """What could not be compared, and what else a reader must know, in words."""
    said = [f"Not compared: {why}." for why in dict.fromkeys(unlike.values())]
    sets = sets_asked(before, after)
    for kind, of in sets.items():
        gone, new = lacking(before, after, kind), lacking(after, before, kind)
        if gone or new:
            said.append(
                f"Only the {counted(len(tuned[kind]), of.item)} that both were asked with the same text are "
                f"compared: {gone:,} only before, {new:,} only after."
            )
    other = [kind for kind in sets if any(is_good(a) != is_good(b) for a, b in both_asked(before, after, kind, "base"))]
    if other:
        said.append(
            f"The untuned models differ, too ({', '.join(sets[kind].item + 's' for kind in other)}): the change is not "
            "the tuning's alone."
        )
    for kind, of in sets.items():
        first, second = (cut_off(revision, kind) for revision in (before, after))
        if None not in (first, second) and abs(first - second) >= MANY:
            said.append(
                f"Cut off: {pct(first)} of the answers to {of.item}s before and {pct(second)} after, which can make a "
                "change of its own."
            )
    if noted := made_on(before, after):
        said.append(f"Not made alike, which can change single tokens: {', '.join(noted)}.")
    if sources := changed_sources(before.lock, after.lock):
        said.append(f"Code and data that the measurement is made from changed: {', '.join(map(code, sources))}.")
    return said


def cut_off(revision: Revision, kind: str, subject: str = "tuned") -> float | None:
    """The share of a model's answers to a set that ran into max_new_tokens; None if none was asked."""
    rows = of_set(revision.outcomes, kind, subject)
    return sum(row.problem == "truncated" for row in rows) / len(rows) if rows else None


def made_on(before: Revision, after: Revision) -> list[str]:
    """What differs in how the tuned models' answers were made without making them other measurements."""
    known = sorted(before.made.keys() & after.made.keys())
    found = [words for file in known for words in differences(before.made[file], after.made[file]).noted]
    return list(dict.fromkeys(found))


def changed_sources(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Files in git that the stages read and that differ, but for those that only show what was measured. Data that one
    of the two alone reads is named by a parameter, which differs."""
    kept = ("stages/", "models/base", "models/embedded", "data/embedded", "data/sets")
    paths = {path for path in {**before, **after} if path.startswith(kept) or not path.startswith(MADE)}
    differ = (path for path in paths - SHOWN_ONLY if before.get(path) != after.get(path))
    return sorted(path for path in differ if path.startswith("stages/") or (path in before and path in after))


MADE = ("data/", "metrics/", "models/", "report/")  # by the stages
# what the report stage reads only to show what was measured
SHOWN_ONLY = {"runs.yaml", "stages/report.py", "stages/lib/report", "models/embedded"}
