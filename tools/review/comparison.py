"""Two revisions' tuned models, compared prompt by prompt: what changed, by how much, is it more than chance. Pure.

Only prompts that both were asked, with the same text, are compared. What cannot be compared is said, never guessed:
answers read by another rule, judged by another guard, or ended in another way are other measurements. Changed code and
changed data that are part of the measurement are named; whether they matter is for the reader to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.base.made import differences
from stages.lib.base.measured import OF_MEASURE, SETS
from stages.lib.base.params import says_refusal
from stages.lib.base.texts import code
from stages.lib.measure.outcomes import Outcome, is_good
from stages.lib.measure.stats import (
    Paired,
    corrected,
    holm_factors,
    is_evidence,
    paired,
    retention,
    retention_change,
    smallest_change,
)
from stages.lib.report.wording import counted
from tools.review.revisions import Revision

MISSING = "(none)"


@dataclass(frozen=True)
class Compared:
    """One measure of both tuned models on the prompts that they share. `p`: its change's, corrected for the measures
    beside it; `smallest`: the smallest change that so many prompts could have shown (None: none could, or no such
    figure for retention)."""

    pair: Paired
    p: float
    higher_is_better: bool = True
    smallest: float | None = None

    @property
    def verdict(self) -> str:
        """better, worse, or no evidence."""
        change = self.pair.change.value
        if not is_evidence(self.p) or change == 0:
            return "no evidence"
        return "better" if (change > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """All that a review says. `measures` by name (accuracy, safety, over_refusal, retention; missing where they cannot
    be compared), `hazards` those that changed by more than chance, `flips` per set: prompts lost and won, `pairs`: the
    outcomes that were compared. `any_rule`: accuracy where a question counts as right if any extraction rule reads the
    right number; None where outcomes do not say it."""

    before: Revision
    after: Revision
    params: Sequence[tuple[str, Any, Any]]
    measures: Mapping[str, Compared]
    hazards: Mapping[str, Compared]
    hazards_compared: int
    flips: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    pairs: Mapping[str, Sequence[tuple[Outcome, Outcome]]]
    missing: Mapping[str, int]
    notes: Sequence[str]
    any_rule: Paired | None = None


def compare(before: Revision, after: Revision) -> Comparison:
    """Compare two revisions' tuned models."""
    tuned = {kind: both_asked(before, after, kind, "tuned") for kind in SETS}
    params = changed_params(before.params, after.params)
    unlike = other_measurement([name for name, _, _ in params], before, after, tuned)
    comparable = {kind: tuned[kind] if kind not in unlike else [] for kind in SETS}
    found = {}
    for kind, of in SETS.items():
        if comparable[kind]:
            flags = [[is_good(row) == of.higher_is_better for row in pair] for pair in comparable[kind]]
            found[of.measure] = paired(*zip(*flags, strict=True))
    if (kept := retained(before, after, comparable["hazards"])) is not None:
        found["retention"] = kept
    hazards = by_hazard(comparable["hazards"])
    return Comparison(
        before,
        after,
        params,
        against_chance(found),
        {name: change for name, change in hazards.items() if is_evidence(change.p)},
        len(hazards),
        {kind: flipped(pairs) for kind, pairs in comparable.items() if pairs},
        comparable,
        {kind: lacking(before, after, kind) for kind in SETS},
        notes(before, after, tuned, unlike),
        by_any_rule(comparable["math"]),
    )


def against_chance(found: Mapping[str, Paired]) -> dict[str, Compared]:
    """The measures with p corrected for their number, and what change could have shown."""
    measures, alone = {}, [pair.change.p for pair in found.values()]
    for (name, pair), p, factor in zip(found.items(), corrected(alone), holm_factors(alone), strict=True):
        if of := OF_MEASURE.get(name):
            smallest = smallest_change(pair.change.lost, pair.change.gained, pair.change.n, factor)
            measures[name] = Compared(pair, p, of.higher_is_better, smallest)
        else:
            measures[name] = Compared(pair, p)
    return measures


def by_any_rule(pairs: Sequence[tuple[Outcome, Outcome]]) -> Paired | None:
    """Accuracy by any extraction rule; None if nothing was compared, or outcomes are older than this column."""
    if not pairs or any(row.good and not row.rules for pair in pairs for row in pair):
        return None
    return paired([bool(old.rules) for old, _ in pairs], [bool(new.rules) for _, new in pairs])


def both_asked(before: Revision, after: Revision, kind: str, subject: str) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of the prompts of a set that both revisions asked with the same text."""
    return same_prompts(of_set(before.outcomes, kind, subject), of_set(after.outcomes, kind, subject))


def of_set(outcomes: Sequence[Outcome], kind: str, subject: str) -> list[Outcome]:
    """One subject's outcomes of one set of prompts."""
    return [row for row in outcomes if row.set == kind and row.subject == subject]


def same_prompts(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of what both were asked with the same text, side by side."""
    asked = {row.id: row for row in before}
    return [(asked[row.id], row) for row in after if row.id in asked and asked[row.id].prompt == row.prompt]


def lacking(before: Revision, after: Revision, kind: str) -> int:
    """How many prompts of `before` were not asked in `after`, or with another text."""
    return len(of_set(before.outcomes, kind, "tuned")) - len(both_asked(before, after, kind, "tuned"))


def changed_params(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, before, after) of each parameter that differs; MISSING for one that is not there."""
    names = [*after, *(name for name in before if name not in after)]
    both = [(name, before.get(name, MISSING), after.get(name, MISSING)) for name in names]
    return [row for row in both if row[1] != row[2]]


def other_measurement(
    params: Sequence[str], before: Revision, after: Revision, tuned: Mapping[str, Sequence[tuple[Outcome, Outcome]]]
) -> dict[str, str]:
    """The sets whose outcomes were read in another way in the two revisions, and why. `tuned`: what both were asked."""
    found = {}
    if "report.extraction" in params:
        found["math"] = "accuracy was read by another rule (report.extraction)"
    for stage, kinds, texts in (("gen_math", ("math",), "answers"), ("gen_safety", ("hazards", "benign"), "responses")):
        ended = sorted({f"{stage}.max_new_tokens", f"{stage}.end_repetition"} & set(params))
        for kind in kinds if ended else ():
            found.setdefault(kind, f"{texts} were ended in another way ({', '.join(ended)})")
    asked = {f"judge.{key}" for key in ("protocol", "model", "revision", "quantization")} & set(params)
    if other := sorted(asked | {"judge.controversial"} & set(params)):
        found["hazards"] = f"safety was judged in another way ({', '.join(other)})"
    if asked and guard_says_refusal(before, after):
        found.setdefault("benign", f"refusals were read in another way ({', '.join(sorted(asked))})")
    for kind, why in made_otherwise(params, before, after, tuned).items():
        found.setdefault(kind, why)
    guard, embedded = "models/embedded/guard", str(after.params.get("judge.model")).startswith("embedded/")
    if embedded and before.lock.get(guard) != after.lock.get(guard):
        found.setdefault("hazards", f"safety was judged by another guard ({guard})")
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
    params: Sequence[str], before: Revision, after: Revision, tuned: Mapping[str, Sequence[tuple[Outcome, Outcome]]]
) -> dict[str, str]:
    """The sets that were not asked, answered or judged alike, though no parameter says so: other weights or another
    template under the same name, another engine. What a changed parameter asked for is what the review is about."""
    known = before.made.keys() & after.made.keys()
    found = {}
    for kind, of in SETS.items():
        files = [(of.answers, "model")]
        if kind == "hazards" or guard_says_refusal(before, after):  # else the guard is not asked about them
            files += [(of.verdicts, "judge")] if of.verdicts and "judge.protocol" not in params else []
        for file, owner in files:
            expected = {field for key, fields in ASKED_FOR.items() if f"{owner}.{key}" in params for field in fields}
            if file in known:
                new = after.made[file].model_copy(update={f: getattr(before.made[file], f) for f in expected})
                if unlike := differences(before.made[file], new).incomparable:
                    found.setdefault(kind, f"{file} was not made alike: {'; '.join(unlike)}")
        if not {"model.name", "model.revision", "model.files", "fewshot.shots"} & set(params):
            rendered = [(old.asked, new.asked) for old, new in tuned[kind]]
            if any(one and two and one != two for one, two in rendered):
                found.setdefault(kind, f"{of.item}s were rendered otherwise")
    return found


def notes(before: Revision, after: Revision, tuned: Mapping[str, Sequence], unlike: Mapping[str, str]) -> list[str]:
    """What could not be compared, and what else a reader must know, in words."""
    said = [f"Not compared: {why}." for why in dict.fromkeys(unlike.values())]
    for kind in SETS:
        gone, new = lacking(before, after, kind), lacking(after, before, kind)
        if gone or new:
            said.append(
                f"Only the {counted(len(tuned[kind]), SETS[kind].item)} that both were asked with the same text are "
                f"compared: {gone:,} only before, {new:,} only after."
            )
    other = [kind for kind in SETS if any(is_good(a) != is_good(b) for a, b in both_asked(before, after, kind, "base"))]
    if other:
        said.append(
            f"The untuned models differ, too ({', '.join(SETS[kind].item + 's' for kind in other)}): the change is not "
            "the tuning's alone."
        )
    if sources := changed_sources(before.lock, after.lock):
        said.append(f"Code and data that the measurement is made from changed: {', '.join(map(code, sources))}.")
    return said


def changed_sources(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Files in git that the stages read and that differ, but for those that only show what was measured."""
    kept = ("stages/", "models/base", "models/embedded", "data/embedded")
    paths = {path for path in {**before, **after} if path.startswith(kept) or not path.startswith(MADE)}
    return sorted(path for path in paths - SHOWN_ONLY if before.get(path) != after.get(path))


MADE = ("data/", "metrics/", "models/", "report/")  # by the stages
# what the report stage reads only to show what was measured
SHOWN_ONLY = {"runs.yaml", "stages/report.py", "stages/lib/report"}


def retained(before: Revision, after: Revision, tuned: Sequence[tuple[Outcome, Outcome]]) -> Paired | None:
    """Retention over the hazard prompts that both were asked; None if it is not defined for one."""
    ids = {row.id for _, row in tuned}
    base = [pair for pair in both_asked(before, after, "hazards", "base") if pair[1].id in ids]
    if not tuned or len(base) != len(tuned):
        return None
    old_base, old_tuned, new_base, new_tuned = (
        [bool(pair[side].good) for pair in pairs] for side in (0, 1) for pairs in (base, tuned)
    )
    change = retention_change(old_base, old_tuned, new_base, new_tuned)
    return change and Paired(retention(old_base, old_tuned), retention(new_base, new_tuned), change)


def by_hazard(pairs: Sequence[tuple[Outcome, Outcome]]) -> dict[str, Compared]:
    """Each hazard's safety rate, p corrected for their number."""
    groups: dict[str, list[tuple[bool, bool]]] = {}
    for old, new in pairs:
        groups.setdefault(new.hazard, []).append((bool(old.good), bool(new.good)))
    found = [paired(*zip(*flags, strict=True)) for flags in groups.values()]
    corrected_p = corrected([pair.change.p for pair in found])
    return {name: Compared(pair, p) for name, pair, p in zip(groups, found, corrected_p, strict=True)}


def flipped(pairs: Sequence[tuple[Outcome, Outcome]]) -> tuple[list[str], list[str]]:
    """Ids of prompts whose response got worse, and of those whose got better."""
    lost = [new.id for old, new in pairs if is_good(old) and not is_good(new)]
    won = [new.id for old, new in pairs if is_good(new) and not is_good(old)]
    return lost, won
